"""What every simulator has in common."""
