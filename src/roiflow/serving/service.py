"""The slate app of one package, one event log and one online store."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from roiflow.catalogue.eligibility import eligible
from roiflow.errors import ArtefactError, ServiceError
from roiflow.online.redis_store import RedisValues
from roiflow.online.store import FeatureStore, OnlineStore, Value, Values, Writes
from roiflow.ranking.recalibration import Recalibration, Recalibrations
from roiflow.serving.app import SlateApp, Version
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models, Recommender
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.stream.checks import Limits
from roiflow.stream.served_log import EventLog

RETRY_SECONDS = 0.5
"""After a failure the online store is left alone so long; slates are degraded meanwhile."""
RECALIBRATION_KEY = "recalibration"
"""Of a package's own values in the online store: its recalibrations, as JSON."""
LOOK_SECONDS = 1.0
"""A service looks so often whether they are others."""


class Breaker:
    """Values that are not asked again for `seconds` after a failure.

    Without it every request would wait for the timeout of a server that hangs.
    """

    def __init__(
        self,
        values: Values,
        seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._values, self._seconds, self._clock = values, seconds, clock
        self._open_until = -math.inf

    def get(self, keys: Sequence[str]) -> list[Value]:
        """As the values beneath; ServiceError at once soon after a failure."""
        if self._clock() < self._open_until:
            raise ServiceError(f"the online store failed less than {self._seconds:g} s ago")
        try:
            return self._values.get(keys)
        except ServiceError:
            # From after the failure, since it may have taken the whole timeout. The clock is
            # monotonic: another, set back, would keep the store shut.
            self._open_until = self._clock() + self._seconds
            raise

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        """As the values beneath."""
        self._values.put(pairs, seconds)

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        """As the values beneath."""
        self._values.commit(key, expected, writes)


class Renewal:
    """Puts a package's newest recalibrations from its online store into its models."""

    def __init__(
        self,
        models: Models,
        values: Values,
        seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models, self._values = models, values
        self._seconds, self._clock = seconds, clock
        self._look_at = -math.inf
        self._content: Value = None

    def look(self) -> None:
        """If it is time; where the store fails or holds nothing whole, what was in force stays."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + self._seconds
        # A slate by the maps of a second ago is better than none.
        with suppress(ServiceError, ArtefactError):
            (content,) = self._values.get([RECALIBRATION_KEY])
            if content is not None and content != self._content:
                self._content = content
                self._models.recalibrations = told(content, self._models.digest)


def told(content: bytes, digest: str) -> Recalibrations:
    """A package's recalibrations from their value in the store. Raises ArtefactError."""
    try:
        each = json.loads(content)
    except ValueError as error:
        raise ArtefactError(f"{RECALIBRATION_KEY}: not JSON: {error}") from None
    if not isinstance(each, list):
        raise ArtefactError(f"{RECALIBRATION_KEY}: not a list: {type(each).__name__}")
    found = Recalibrations.of(tuple(Recalibration.of(one, RECALIBRATION_KEY) for one in each))
    if others := {one.package for one in found.each} - {digest}:
        raise ArtefactError(f"{RECALIBRATION_KEY}: is of package {min(others)}, not of {digest}")
    return found


def tell(values: Values, recalibrations: Recalibrations) -> None:
    """Put them where the services of the package look. Raises ServiceError."""
    content = json.dumps([one.content() for one in recalibrations.each])
    values.put({RECALIBRATION_KEY: content.encode()}, 0)


class OnlineSlates:
    """A recommender with its store: the app's SlateMaker."""

    def __init__(
        self, recommender: Recommender, store: OnlineStore, renewal: Renewal | None = None
    ) -> None:
        self._recommender, self._store, self._renewal = recommender, store, renewal

    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        """See app.SlateMaker."""
        if self._renewal:
            self._renewal.look()
        return self._recommender.recommend(contexts, self._store)

    def check(self, at: int) -> None:
        """See app.SlateMaker."""
        self._store.read([], at)
        shelf = self._store.shelf
        if not shelf.size:
            raise ServiceError("the catalogue is empty: no ad has ever come, or no store was read")
        terms = shelf.catalogue.terms
        # Without what was spent: that is another day's again tomorrow, and no fault.
        if not eligible(terms, np.zeros(shelf.size), at, shelf.pacing).any():
            raise ServiceError(f"no ad may be shown: all {shelf.size} have ended or not begun")


def namespace(digest: str) -> str:
    """Prefix of a package's keys: its own, since dense indices mean nothing to another one."""
    return f"roiflow:{digest[:12]}:"


def build_app(
    package_folder: Path, limits: Path | None, redis_url: str | None, served: Path
) -> SlateApp:
    """`limits` is the file of what the door takes, `served` the folder of the event log.

    Raises PackageError on a package that is not whole, ParamsError on limits that cannot be read,
    ServiceError where no limits or no Redis are named.
    """
    if not limits:
        raise ServiceError(
            "no limits of the door: set ROIFLOW_LIMITS to the file, such as .roiflow/limits/*.json"
        )
    if not redis_url:
        raise ServiceError(
            "no online store: set ROIFLOW_REDIS_URL, such as redis://127.0.0.1:6379/0"
        )
    package = Package.load(package_folder)
    recommender = Recommender(package)
    models = recommender.models
    values = Breaker(RedisValues(redis_url, namespace(package.digest)))
    store = FeatureStore(models.plan, models.vocabulary, recommender.history, values)
    about = package.description
    return SlateApp(
        OnlineSlates(recommender, store, Renewal(models, values)),
        EventLog(served),
        Version(recommender.policy_version, package.digest, about.week),
        about.cost_shares,
        Limits.read(limits),
        feature_sample=about.feature_sample,
    )
