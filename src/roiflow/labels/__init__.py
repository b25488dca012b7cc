"""What a label says: whether its ad was looked at, and how much of what it brings is known yet."""
