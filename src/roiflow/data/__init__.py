"""The data contract, where data comes from, and how a week of it lies on disk."""
