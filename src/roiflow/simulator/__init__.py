"""The ad world: it answers every slate, and its truth is known."""
