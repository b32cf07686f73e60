"""What spending costs, for real: training runs on this machine."""

if __name__ != "allocgym.real_backend":
    raise ImportError("import allocgym.real_backend, not real_backend")
