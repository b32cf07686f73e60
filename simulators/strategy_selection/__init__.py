"""Strategy instances and their exact evaluator."""
