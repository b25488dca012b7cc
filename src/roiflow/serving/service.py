"""The slate app of one package, one event log and one online store."""

from pathlib import Path

import numpy as np

from roiflow.errors import ServiceError
from roiflow.features.online import OnlineStore
from roiflow.features.redis_store import RedisStore
from roiflow.serving.app import SlateApp, Version
from roiflow.serving.event_log import EventLog, Opened
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts, Slates


class OnlineSlates:
    """A recommender with its store and its randomness: the app's SlateMaker."""

    def __init__(
        self, recommender: Recommender, store: OnlineStore, rng: np.random.Generator
    ) -> None:
        self._recommender, self._store, self._rng = recommender, store, rng

    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        """See app.SlateMaker."""
        return self._recommender.recommend(contexts, self._store, self._rng)


def namespace(digest: str) -> str:
    """Prefix of a package's keys: its own, since dense indices mean nothing to another one."""
    return f"roiflow:{digest[:12]}:"


def build_app(package_folder: Path, redis_url: str | None, served: Path) -> SlateApp:
    """Raises PackageError on a package that is not whole, ServiceError without a Redis address."""
    if not redis_url:
        raise ServiceError(
            "no online store: set ROIFLOW_REDIS_URL, such as redis://127.0.0.1:6379/0"
        )
    package = Package.load(package_folder)
    recommender = Recommender(package)
    models = recommender.models
    store = RedisStore(
        models.plan, models.vocabulary, recommender.history, redis_url, namespace(package.digest)
    )
    about = package.description
    shares = about.cost_shares
    version = recommender.policy_version
    opened = Opened(version, shares.impression, shares.click, shares.conversion)
    return SlateApp(
        OnlineSlates(recommender, store, np.random.default_rng()),
        EventLog(served, opened),
        Version(version, package.digest, about.week, len(package.ads.ad_id)),
    )
