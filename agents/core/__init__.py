"""The ways to run an agent: files, controller, deployment, trainers, reports."""
