"""Weights with sub-Gaussian tails (Metelli, Russo & Restelli, 2021)."""

from roiflow.features.table import Floats


def sub_gaussian(weight: Floats, strength: float) -> Floats:
    """w / (1 - lambda + lambda w): 0 leaves the weight, 1 makes all of them 1."""
    return weight / (1.0 - strength + strength * weight)
