"""Packing instances and their exact evaluator."""
