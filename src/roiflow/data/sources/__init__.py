"""Where behaviour data comes from: one file per source, one protocol."""
