"""Who is shown what in a comparison of two versions."""
