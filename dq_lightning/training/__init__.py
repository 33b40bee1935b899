"""Training: the step, the optimizer groups and the callbacks around it."""
