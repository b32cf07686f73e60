"""Who decides populations better: suites of populations and schedules."""
