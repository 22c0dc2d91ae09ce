"""Which images a step takes, and batches of their views."""
