"""Third-party packages loaded once, for every program of a run: see `server`."""
