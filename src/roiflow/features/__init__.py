"""As-known features: dense indices, CSR histories, counters; the same offline and online."""
