"""Events from the door to the online store and the lake: each counts once, whatever fails."""
