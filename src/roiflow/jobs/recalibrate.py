"""Recalibrate what is deployed on the slates that it served; the services take it up by themselves.

The slates are those of the stream's part of the lake, so that a consumer has to have put them
there. What is fitted comes into force a minute later, by when every service has looked: a slate's
time tells then which one it was made with, for a replay as for the log.
"""

import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from roiflow.bundle import Bento, find_bento
from roiflow.data import event_lake, served_features
from roiflow.data.events import CLICK, CONVERSION, conform, of_kind, shown, with_outcomes
from roiflow.data.schemas import CONVERSIONS
from roiflow.data.weeks import MICROS_PER_HOUR, MICROS_PER_SECOND, Week, span
from roiflow.deployment.placed import current
from roiflow.deployment.release import ensure_redis
from roiflow.errors import ServiceError
from roiflow.labels.model import Labels
from roiflow.online.redis_store import BATCH_SECONDS, RedisValues
from roiflow.params import RecalibrateParams, load_params
from roiflow.ranking.recalibration import Recalibration
from roiflow.serving import recalibrate
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import NOTHING, Known, learn
from roiflow.serving.recommender import Models
from roiflow.serving.service import LOOK_SECONDS, namespace, tell
from roiflow.settings import Settings
from roiflow.stages.command import run

AHEAD_SECONDS = 60
"""Far longer than a service waits before it looks again."""
assert AHEAD_SECONDS > 10 * LOOK_SECONDS


def main(labels: Path, params: Path) -> None:
    """Of every deployed package, one line: what it learnt, or why it did not."""
    config, settings = load_params(params), Settings()
    known, now = Labels.read(labels / Labels.place.name), time.time_ns() // 1000
    for line in deployed(settings, known, config.recalibrate, now):
        print(line)


def deployed(settings: Settings, labels: Labels, params: RecalibrateParams, now: int) -> list[str]:
    """See `main`. Raises ServiceError where nothing is deployed, or no Redis is named."""
    home = settings.home.absolute()
    arms = current(home)
    if not arms:
        raise ServiceError(f"{home}: nothing is deployed, so nothing was served")
    known = of_stream(settings.lake, now, params)
    tags = dict.fromkeys(arm.tag for arm in arms)
    return [_one(settings, find_bento(tag, home), known, labels, params, now) for tag in tags]


def _one(
    settings: Settings,
    bento: Bento,
    known: Known,
    labels: Labels,
    params: RecalibrateParams,
    now: int,
) -> str:
    lake, source, digest = settings.lake, event_lake.SOURCE, bento.digest
    kept = recalibrate.kept(lake, source, digest)
    models = Models(Package.load(bento.package), kept)
    found = learn(models, digest, known, labels, now, params)
    if found is not None:
        recalibrate.keep(lake, source, ahead(found))
    # Also where there is no new one: an online store that was filled anew has lost what it held.
    url = ensure_redis(settings.home.absolute(), settings.redis_url)
    values = RedisValues(url, namespace(digest), BATCH_SECONDS)
    try:
        tell(values, recalibrate.kept(lake, source, digest))
    finally:
        values.close()
    if found is None:
        return f"{digest[:12]}: fewer than {params.min_clicks} clicks are known, nothing changes"
    learned = found.learned
    return (
        f"{digest[:12]}: click {_words(found, 'click')}, conversion {_words(found, 'conversion')}, "
        f"from {learned.impressions:,} impressions, {learned.clicks:,} clicks and "
        f"{learned.conversions:,} conversions of {learned.users:,} users, "
        f"{100 * learned.maturity:.0f} % of the conversions known"
    )


def ahead(found: Recalibration) -> Recalibration:
    """In force once every service has it."""
    return replace(found, since=found.since + AHEAD_SECONDS * MICROS_PER_SECOND)


def _words(found: Recalibration, name: str) -> str:
    map_ = getattr(found, name)
    return f"{map_.intercept:+.3f} {map_.slope:.3f} x logit"


def of_stream(lake: Path, now: int, params: RecalibrateParams) -> Known:
    """The window's slates in the lake, and what of them was known before `now`, microseconds."""
    weeks = span(Week.of(now - params.window_hours * MICROS_PER_HOUR), Week.of(now))
    parts = [part.read() for part in event_lake.parts(lake) if part.week >= weeks[0]]
    if not parts:
        return NOTHING
    events = pa.concat_tables(parts)
    slates = [served_features.read(lake, event_lake.SOURCE, week) for week in weeks]
    conversions = of_kind(events, CONVERSION)
    impressions = with_outcomes(shown(events), of_kind(events, CLICK), conversions)
    return Known(
        pa.concat_tables([NOTHING.served, *(one for one in slates if one is not None)]),
        impressions,
        conform(conversions, CONVERSIONS),
    )


if __name__ == "__main__":
    run(main)
