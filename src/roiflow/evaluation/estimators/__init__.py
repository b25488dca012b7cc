"""Estimators of what a policy would have earned, one file each."""
