"""The decision problems as Gymnasium environments."""

if __name__ != "allocgym.envs":
    raise ImportError("import allocgym.envs, not envs")
