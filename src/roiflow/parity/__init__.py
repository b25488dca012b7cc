"""What serving was given, computed again from the lake; known faults tried as explanations."""
