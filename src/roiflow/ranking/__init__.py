"""Rankers: who will click, who will buy, for how much."""
