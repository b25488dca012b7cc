"""The week that a run is about: which one, and who serves it in the simulated world."""
