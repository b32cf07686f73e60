"""What every real back end needs: a device, and checkpoints that survive a kill."""
