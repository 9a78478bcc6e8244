"""The explicit training loop and what surrounds it: schedule, checkpoints, resume."""
