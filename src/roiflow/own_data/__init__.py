"""Somebody's own data before a run: what is in it, and what can be said about it."""
