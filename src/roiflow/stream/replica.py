"""One online store as the consumer sees it: up to date, behind, or away."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from roiflow.catalogue.catalogue import Catalogue
from roiflow.errors import ContractError, RoiflowError, ServiceError
from roiflow.stream.journal import Batch

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a store that failed is asked again: doubled with every failure."""

FAULTS = (ServiceError, ContractError)
"""The store is away or of another layout, or its snapshot cannot be read."""

Past = Callable[[int], Iterable[Batch]]
"""All batches after a stamp, oldest first."""


class Store(Protocol):
    """What is needed of an online store. All methods raise ServiceError where it is away."""

    def watermark(self) -> int | None:
        """The newest time it knows, microseconds; None where it is empty."""
        ...

    def catalogue(self) -> Catalogue:
        """What can be shown."""
        ...

    def update(self, tables: Mapping[str, pa.Table], stamp: int, after: int | None = None) -> bool:
        """Take in a batch at once with its stamp; False where it has the stamp already.

        Raises ServiceError where `after` is given and is not the newest time that it knows.
        """
        ...


class Replica:
    """Follows the journal: each batch once, whatever becomes of the store."""

    def __init__(
        self, name: str, store: Store, load: Callable[[], object], clock: Callable[[], float]
    ) -> None:
        """`load` fills an empty store with its package's snapshot."""
        self.name, self._store, self._load, self._clock = name, store, load, clock
        self._at: int | None = None
        self._pause, self._retry = FIRST_PAUSE, clock()
        self.fault = "not looked at yet"

    @property
    def behind(self) -> bool:
        """Whether it lacks batches, as far as is known."""
        return self._at is None

    def watermark(self) -> str:
        """What the store says it knows, or why it says nothing: for people."""
        try:
            found = self._store.watermark()
        except FAULTS as error:
            return str(error)
        return "empty" if found is None else f"{datetime.fromtimestamp(found / 1e6, UTC):%F %T} UTC"

    def catalogue(self) -> Catalogue | None:
        """What can be shown, as the store has it; None where it is away."""
        try:
            return self._store.catalogue()
        except FAULTS:
            return None

    def apply(self, batch: Batch, past: Past) -> None:
        """Take in the newest batch, which is in the journal. A fault is kept, not raised."""
        if self._at is None:
            self.catch_up(past)
            return
        try:
            # Not where this process left it: emptied, filled from a snapshot, or moved by another.
            # One GET for each batch, against events that would be missing for good.
            if _known(self._store.watermark()) != self._at:
                self._at = None
                self._follow(past)
            else:
                self._store.update(batch.tables, batch.stamp, after=self._at)
                self._at = batch.stamp
        except FAULTS as error:
            self._fail(error)

    def catch_up(self, past: Past) -> None:
        """Take in what is missing, if it is time to ask again. A fault is kept, not raised."""
        if self._at is not None or self._clock() < self._retry:
            return
        try:
            self._follow(past)
        except FAULTS as error:
            self._fail(error)

    def _follow(self, past: Past) -> None:
        at = self._store.watermark()
        if at is None:
            self._load()
            at = self._store.watermark()
        for batch in past(at or 0):
            self._store.update(batch.tables, batch.stamp, after=_known(at))
            at = batch.stamp
        self._at, self._pause, self.fault = _known(at), FIRST_PAUSE, ""

    def _fail(self, error: RoiflowError) -> None:
        self._at, self.fault = None, str(error)
        self._retry = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _known(watermark: int | None) -> int:
    return -1 if watermark is None else watermark
