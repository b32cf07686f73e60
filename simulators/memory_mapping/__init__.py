"""Memory simulators: bundled programs, a SimPy machine and its batched twin."""
