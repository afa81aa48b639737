"""Training: data, schedules, the step, checkpoints, logs and the loop."""
