"""Worlds for tests: the shipped one with some keys replaced, in whichever section they are."""

from pathlib import Path
from typing import Any

import yaml

from roiflow.params import SimulatorParams, load_params

ROOT = Path(__file__).parents[1]

SYNTHETIC: dict[str, Any] = {"world": "synthetic", "weeks": 4, "shock_week": "2026-W06"}
"""What makes the shipped simulator the planted world."""

SHIPPED = load_params(ROOT / "params.yaml").ingest.simulator.model_copy(update=SYNTHETIC)

STEADY: dict[str, object] = {
    "budgets": False,
    "return_rate": 0.0,
    "newcomers": 0.0,
    "churn": 0.0,
    "new_ads_per_week": 0,
    "ad_weeks": 1e17,
    "fatigue": 0.0,
    "holidays": [],
}
"""Nobody and nothing comes, goes, is returned, wears out or runs out of money."""


def planted_content() -> dict[str, Any]:
    """params.yaml for a run of the planted world."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"] |= {"source": "simulator", "week": "2026-W04"}
    content["ingest"]["simulator"] |= SYNTHETIC
    return content


def world_params(**keys: object) -> SimulatorParams:
    """The shipped world with keys replaced. Raises KeyError on one that no section has."""
    left = dict(keys)
    content = _replaced(SHIPPED.model_dump(), left)
    if left:
        raise KeyError(f"ingest.simulator has no {', '.join(left)}")
    return SimulatorParams.model_validate(content)


def _replaced(section: dict[str, Any], left: dict[str, object]) -> dict[str, Any]:
    """Takes what it finds out of `left`."""
    found = {name: left.pop(name) for name in section if name in left}
    inner = {name: value for name, value in section.items() if isinstance(value, dict)}
    deep = {name: _replaced(value, left) for name, value in inner.items() if name not in found}
    return section | deep | found
