"""What an activation plan costs: time and physical peak."""
