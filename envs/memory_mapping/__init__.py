"""Memory: the rules of the mapping game and of activation plans."""
