"""As-known features: dense indices, CSR histories, counters; the same offline and online."""

from roiflow.features.folder import read

__all__ = ["read"]
