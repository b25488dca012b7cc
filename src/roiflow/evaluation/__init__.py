"""What a model or a policy is worth: metrics, off-policy estimates, screen, trial, report."""
