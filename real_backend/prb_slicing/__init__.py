"""Radio slicing for real: Linux queues, SCOPE files, the RIC socket."""
