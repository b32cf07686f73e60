"""Who decides: heuristics, oracles, learned agents and the ways to run them."""

if __name__ != "allocgym.agents":
    raise ImportError("import allocgym.agents, not agents")
