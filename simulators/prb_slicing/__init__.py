"""Radio slicing in simulation: traffic, channel, queues; packets with SimPy, fluid in NumPy."""
