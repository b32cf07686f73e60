"""Who maps tensors: greedy rules, searches, a solver with a bound, learned priorities."""
