"""Radio slicing: divide a cell's resource block groups among slices, a decision each 250 ms."""
