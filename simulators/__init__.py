"""What spending costs, simulated: a SimPy reference and a batched NumPy twin."""

if __name__ != "allocgym.simulators":
    raise ImportError("import allocgym.simulators, not simulators")
