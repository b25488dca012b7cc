"""What ROSA is compared with: one file per model, the same protocol."""
