"""Benjamini-Hochberg, against R's p.adjust."""

import numpy as np
import pytest

from roiflow.experiment.discoveries import benjamini_hochberg


def test_as_published() -> None:
    found = benjamini_hochberg(np.array([0.005, 0.06, 0.007, 0.04, 0.01, 0.03]))
    assert found.tolist() == pytest.approx([0.02, 0.06, 0.02, 0.048, 0.02, 0.045])


def test_none_and_one() -> None:
    assert benjamini_hochberg(np.array([])).size == 0
    assert benjamini_hochberg(np.array([0.3])).tolist() == [0.3]
