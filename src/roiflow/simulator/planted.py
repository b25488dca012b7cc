"""truth.json: what was planted in a world, for people and proofs, never for a stage.

It lies beside the simulator's weeks, outside every checkout of the pipeline. No stage may import
this module (import-linter holds that), so whoever asks for weeks writes the file, not the source.
A user's own interests are not listed: there may be millions, and the seed gives them back.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.files import write_file
from roiflow.simulator import population as people
from roiflow.simulator import synthetic, synthetic_draws, synthetic_passes
from roiflow.simulator.population import Ads
from roiflow.simulator.scenarios import Effects
from roiflow.simulator.world import World

FORMAT = 1
FILE = "truth.json"


def planted(world: World, week: Week) -> dict[str, Any]:
    """Every planted parameter of a world up to a week, in plain lists and numbers.

    `ads` are columns as they are without the scenario, at the given week (a creative's fatigue is
    in its click's log odds); `weeks` holds the scenario's effects on top. Times are microseconds.
    """
    ads = world.population.ads(week, Effects())
    first, count = world.first_week, 0
    weeks = {}
    while (at := first.plus(count)) <= week:
        weeks[str(at)] = _plain(world.effects(at))
        count += 1
    return {
        "format": FORMAT,
        "parameters": world.params.model_dump(),
        "first_week": str(first),
        "week": str(week),
        "examination": _examination(world),
        "constants": _constants(world),
        "categories": _categories(world, ads),
        "ads": _plain(ads) | {
            "category": world.population.categories[ads.category].tolist(),
            "ad_type": np.array(people.AD_TYPES)[ads.ad_type].tolist(),
        },
        "weeks": weeks,
    }  # fmt: skip


def write_planted(folder: Path, world: World, week: Week) -> Path:
    """Put truth.json into a folder of simulated weeks, whole or not at all."""
    # NaN is no JSON: better an error here than a file that other programs refuse.
    text = json.dumps(planted(world, week), indent=1, allow_nan=False) + "\n"
    path = folder / FILE
    with write_file(path) as aside:
        aside.write_text(text)
    return path


def read_planted(path: Path) -> dict[str, Any]:
    """What `planted` gave. Raises SourceError naming the file; of another format, both formats."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise SourceError(f"{path}: of format {found!r}, this version reads format {FORMAT}")
    return dict(content)


def _plain(record: Ads | Effects) -> dict[str, object]:
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values
    }


def _examination(world: World) -> list[float]:
    """P(position is looked at) of a slate of average ads (S,)."""
    average = np.full((1, world.slate_size), world.params.click_rate)
    return [float(chance) for chance in world.examine(average)[0]]


def _categories(world: World, ads: Ads) -> dict[str, list[Any]]:
    """Per category its ads' mean conversion delay, and the middle of their prices and odds."""
    rows = [np.flatnonzero(ads.category == one) for one in range(world.population.categories.size)]
    return {
        "id": world.population.categories.tolist(),
        "ads": [own.size for own in rows],
        "mean_delay_hours": [_of(np.mean, ads.delay[own]) for own in rows],
        "median_price": [_of(np.median, ads.price[own]) for own in rows],
        "mean_conversion_log_odds": [_of(np.mean, ads.conversion[own]) for own in rows],
    }


def _of(middle: Any, values: np.ndarray[Any, Any]) -> float | None:
    # A category may have no ad, and the mean of nothing is NaN.
    return float(middle(values)) if values.size else None


def _constants(world: World) -> dict[str, object]:
    """Planted constants; log odds unless they are shares or factors."""
    common = {
        "placement_shares": _named(people.PLACEMENTS, people.PLACEMENT_SHARES),
        "placement_click": _named(people.PLACEMENTS, people.PLACEMENT_EFFECT.tolist()),
        "device_shares": _named(people.DEVICES, people.DEVICE_SHARES),
        "ad_type_on_device_click": {
            kind: _named(people.DEVICES, row)
            for kind, row in _named(people.AD_TYPES, people.AD_TYPE_ON_DEVICE.tolist()).items()
        },
        "hour_click": people.HOUR_EFFECT.tolist(),
        "hour_shares": people.HOUR_SHARES.tolist(),
        "weekday_factors": people.WEEKDAY_FACTORS.tolist(),
    }
    if world.params.world != "synthetic":
        return common
    return common | {
        "action_shares": _named(people.ACTIONS, synthetic_passes.ACTION_SHARES),
        "age_shares": _named(synthetic_draws.AGES, synthetic_draws.AGE_SHARES),
        "age_interest": synthetic_draws.AGE_INTEREST,
        "membership_shares": _named(synthetic_draws.MEMBERSHIPS, synthetic_draws.MEMBERSHIP_SHARES),
        "membership_conversion": _named(
            synthetic_draws.MEMBERSHIPS, synthetic_draws.MEMBERSHIP_EFFECT.tolist()
        ),
        "interest_on_conversion": synthetic_passes.INTEREST_ON_CONVERSION,
        "interest_on_action": synthetic_passes.INTEREST_ON_ACTION,
        "holiday_traffic": synthetic.HOLIDAY_TRAFFIC,
        "holiday_conversion": synthetic.HOLIDAY_CONVERSION,
        "newcomer_weeks": synthetic.NEWCOMER_WEEKS,
    }


def _named(names: tuple[str, ...], values: Any) -> dict[str, Any]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))
