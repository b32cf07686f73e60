"""What Ray costs and brings as an engine: trainers side by side, cells per minute."""
