"""Who orders buffers: rules, climbing, CP-SAT, learned priorities."""
