"""What is deployed is recalibrated from the stream's part of the lake."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.run import Placed
from roiflow.bundle import Bento
from roiflow.data import event_lake
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.deployment.placed import remember
from roiflow.errors import ServiceError
from roiflow.features.vocabulary import Vocabulary
from roiflow.jobs import recalibrate
from roiflow.online.store import MemoryValues
from roiflow.params import load_params
from roiflow.ranking.recalibration import Recalibrations
from roiflow.serving.package import VOCABULARY, Package
from roiflow.serving.recalibrate import kept, learn
from roiflow.serving.recommender import Models
from roiflow.serving.service import RECALIBRATION_KEY, told
from roiflow.settings import Settings
from roiflow.stream import rows
from roiflow.stream.events import Click, Conversion, Shown, Slate, impression_id
from tests.labels import planted_labels
from tests.unit.serving.packages import ROOT

WEEK, HOUR, MINUTE = Week.parse("2026-W05"), MICROS_PER_HOUR, 60_000_000
NOW = WEEK.start + 30 * HOUR
PARAMS = load_params(ROOT / "params.yaml").recalibrate.model_copy(
    update={"window_hours": 48, "user_share": 1.0, "min_clicks": 20, "prior_events": 1e-6}
)
LABELS = planted_labels((1.0, 0.5), (0.0, 1.0))


def slate(number: int, package: Package, names: Sequence[str], at: int, **more: object) -> Slate:
    """Two ads, of which 0.2 and 0.4 of those who look are expected to click, and 0.05 to buy."""
    values: dict[str, object] = {
        "request_id": f"r{number}",
        "user_id": f"u{number}",
        "event_time": at,
        "known_time": at,
        "placement": "home",
        "device": "phone",
        "arm": "stable",
        "degraded": False,
        "policy_version": package.digest[:12],
        "impression_share": 0.0,
        "click_share": 1.0,
        "conversion_share": 0.0,
        "ads": [Shown(names[0], 1, 0.5, 0.2, 1.0, 0.05), Shown(names[1], 1, 0.5, 0.4, 1.0, 0.1)],
        "as_of": at - 1,
        "features": "f",
    }
    return Slate(**(values | more))  # type: ignore[arg-type]


def write_events(lake: Path, package: Package) -> None:
    """1,000 slates: of the first ad 100 clicks, of the second 100; half of them bought.

    Half of the second positions were looked at, so that all of it is half of what was expected.
    Part of it is of the week before, and some slates do not count.
    """
    ads = Vocabulary.read(package.folder / VOCABULARY).ids("ad")[:2].to_pylist()
    start = WEEK.start - 2 * HOUR
    slates = [slate(n, package, ads, start + n * MINUTE // 10) for n in range(1000)]
    clicked = [impression_id(f"r{n}", place) for n in range(100) for place in (1, 2)]
    late = start + 3 * HOUR
    clicks = [Click(impression_id=name, event_time=late, known_time=late) for name in clicked]
    sales = [
        Conversion(impression_id=name, revenue_micros=1, event_time=late, known_time=late)
        for name in clicked[::2]
    ]
    others = [
        slate(2000, package, ads, start, policy_version="another"),
        slate(2001, package, ads, start, degraded=True, as_of=None, features=None),
        slate(2002, package, ads, start, ads=[Shown(ads[0], 1, 0.5, 0.2, 1.0)]),
    ]
    event_lake.write(lake, 0, rows.table([*slates, *others, *clicks, *sales]))


class Closing(MemoryValues):
    """Values that are closed when done with."""

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def settings(tmp_path: Path, package: Package, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home in which a Bento of the package is deployed."""
    bento = Bento("ad_ranker:1", tmp_path, package.digest)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "package").symlink_to(package.folder)
    monkeypatch.setattr(recalibrate, "find_bento", lambda tag, home: bento)
    return Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Closing:
    found = Closing()
    monkeypatch.setattr(recalibrate, "RedisValues", lambda *arguments: found)
    return found


def place(settings: Settings) -> None:
    remember(settings.home.absolute(), [Placed("stable", 100, "ad_ranker:1", "limits")])


def test_a_deployed_package_learns_from_the_lake(
    settings: Settings, values: Closing, package: Package
) -> None:
    place(settings)
    write_events(settings.lake, package)
    (line,) = recalibrate.deployed(settings, LABELS, PARAMS, NOW)
    assert line.startswith(package.digest[:12])
    assert "from 2,000 impressions, 200 clicks and 100 conversions of 1,000 users" in line
    (one,) = kept(settings.lake, "stream", package.digest).each
    assert one.since == NOW + 60_000_000
    # 0.2 was clicked at 0.1; 0.4 at 0.1 where half looked, which is 0.2.
    np.testing.assert_allclose(one.click.apply(np.array([0.2, 0.4])), [0.1, 0.2], rtol=0.02)
    assert one.conversion.apply(np.array([0.25])) == pytest.approx([0.5], rel=1e-3)
    (content,) = values.get([RECALIBRATION_KEY])
    assert content is not None
    assert told(content, package.digest) == Recalibrations((one,))
    assert values.closed


def test_too_few_clicks_change_nothing_and_what_is_kept_is_told_again(
    settings: Settings, values: Closing, package: Package
) -> None:
    place(settings)
    write_events(settings.lake, package)
    recalibrate.deployed(settings, LABELS, PARAMS, NOW)
    before = values.get([RECALIBRATION_KEY])
    values.put({RECALIBRATION_KEY: b""}, 0)
    (line,) = recalibrate.deployed(settings, LABELS, PARAMS, NOW + 100 * HOUR)
    assert line.endswith("fewer than 20 clicks are known, nothing changes")
    assert values.get([RECALIBRATION_KEY]) == before


def test_nothing_deployed_and_nothing_served(settings: Settings, package: Package) -> None:
    with pytest.raises(ServiceError, match="nothing is deployed"):
        recalibrate.deployed(settings, LABELS, PARAMS, NOW)
    models = Models(Package.load(package.folder))
    nothing = recalibrate.of_stream(settings.lake, NOW, PARAMS)
    assert learn(models, package.digest, nothing, LABELS, NOW, PARAMS) is None
