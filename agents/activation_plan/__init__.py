"""Who decides activation plans: rules, torch's knapsacks, a search, a learned policy."""
