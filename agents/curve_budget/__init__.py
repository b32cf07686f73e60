"""Who decides for recorded curves: published schedulers and a learned priority."""
