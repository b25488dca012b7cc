"""What one stage or job writes for another: each file a type, with the place where a run has it."""
