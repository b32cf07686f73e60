"""What training on a mixture does and costs, simulated."""
