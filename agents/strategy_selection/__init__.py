"""Who chooses strategies: rules at the node at hand, a tuned score, whole-instance search."""
