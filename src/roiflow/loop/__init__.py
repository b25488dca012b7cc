"""The closed loop of the simulated world, and what it came to."""
