"""Who decides for populations: published schedulers, schedules, oracles, learned policies."""
