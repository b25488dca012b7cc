"""What a model or a policy is worth: metrics, off-policy estimates, the gate, the report."""
