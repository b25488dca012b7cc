"""The consumer: each event counts once, in every online store and in the lake.

    poll -> check -> dead letters -> journal (fsync) -> online stores -> commit -> lake

What the journal holds is taken; everything else can be made anew from it. A consumer that is killed
anywhere begins where its journal ends: it reads on at the journal's position, knows what was there
before by the ids in journal and lake, and brings the stores up to date from their watermarks. What
arrived and was not in the journal yet arrives again.

The stamp of a batch is the `known_time` of its events: greater than all before it, and not before
any of its events reached the door. Stores keep the stamp they have, so that nothing is added twice.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data import event_lake
from roiflow.data.events import changes as events_changes
from roiflow.data.weeks import MICROS_PER_HOUR, MICROS_PER_SECOND
from roiflow.errors import CatalogueError, ServiceError
from roiflow.stream import rows
from roiflow.stream.arrivals import Arrivals, Arrived, DeadLetters, Position
from roiflow.stream.checks import Limits
from roiflow.stream.duplicates import Seen, hours_of, keys_of
from roiflow.stream.events import Change
from roiflow.stream.history import History
from roiflow.stream.intake import ends, take_in
from roiflow.stream.journal import Batch, Journal, State
from roiflow.stream.replica import Replica


@dataclass(frozen=True)
class Pace:
    """How much at a time."""

    batch_events: int
    batch_seconds: float
    """A poll waits so long for the first event."""
    segment_bytes: int
    segment_seconds: float
    """A segment goes to the lake when it is so large or old."""
    remembered: int
    """Microseconds back from the newest stamp in which duplicates are known; older is late."""


class Consumer:
    """One writer. `step` after `step`; after an error the next step goes on rightly."""

    def __init__(
        self,
        arrivals: Arrivals,
        letters: DeadLetters,
        journal: Journal,
        lake: Path,
        limits: Limits,
        pace: Pace,
        now: Callable[[], int],
    ) -> None:
        """`now` gives microseconds since the epoch, UTC. `start` comes before the first step."""
        self._arrivals, self._letters, self._journal = arrivals, letters, journal
        self._lake, self._limits, self._pace, self._now = lake, limits, pace, now
        self._history = History(lake, journal)
        self._seen = Seen()
        self._replicas: Sequence[Replica] = ()

    @property
    def state(self) -> State:
        """What the journal says."""
        return self._journal.state

    @property
    def replicas(self) -> Sequence[Replica]:
        """The stores that are followed."""
        return self._replicas

    def start(self, replicas: Sequence[Replica]) -> None:
        """Know what was taken, go on after it, and bring the stores up to date.

        Raises ServiceError where disk or broker do not answer.
        """
        # A new segment, above all that journal and lake have, so that no number is ever used twice:
        # a killed consumer may have left its last one half in the lake. The rest of the old ones
        # goes there now.
        self._journal.open(self._history.last_number() + 1, self._history.last_stamp())
        self._seal()
        for events in self._history.ids(self._oldest()):
            self._seen.add(keys_of(events), hours_of(events))
        self._arrivals.seek(self.state.position)
        self.follow(replicas)

    def follow(self, replicas: Sequence[Replica]) -> None:
        """The stores to keep up to date from now on."""
        self._replicas = replicas
        self._catch_up()

    def step(self) -> int:
        """Take what arrived; how many messages that was.

        Raises ServiceError where journal, lake, dead letters or broker fail; nothing is lost.
        """
        try:
            arrived = self._arrivals.poll(self._pace.batch_events, self._pace.batch_seconds)
            # A position moves without events, too, past what was refused or there before. Where it
            # does not move there is nothing to keep, and no fsync to pay for.
            position = self.state.position | arrived.position
            if position != self.state.position:
                self._take(arrived, position)
        except ServiceError:
            self._arrivals.seek(self.state.position)
            raise
        self._catch_up()
        if self._full():
            self._journal.open(self._journal.number + 1)
        self._seal()
        return len(arrived.payloads)

    def _take(self, arrived: Arrived, position: Position) -> None:
        intake = take_in(
            arrived,
            self._seen,
            now=self._now(),
            oldest=self._oldest(),
            limits=self._limits,
            emptying=self._emptying,
        )
        # Letters before the journal: a kill between the two writes a letter twice, which a person
        # sees; the other way round it would be lost, which nobody sees.
        if intake.letters:
            self._letters.put(intake.letters)
        batch = self._stamped(intake.events)
        counts = Counter(self.state.counts) + intake.counts
        # From here on the batch counts. What is remembered of it comes after, so that a batch that
        # failed is fresh when it arrives again.
        self._journal.append(batch.events, State(batch.stamp, position, dict(counts)))
        self._seen.add(intake.keys, intake.hours)
        self._seen.forget(self._oldest() // MICROS_PER_HOUR)
        if batch.events.num_rows:
            for replica in self._replicas:
                replica.apply(batch, self._history.after)
        # Last, and only for those who look at the broker: a start reads on from the journal's
        # position.
        self._arrivals.commit(position)

    def _emptying(self, found: list[Change]) -> str:
        """Why changes would leave nothing to show in a store that is followed; "" where not.

        Asked before they are taken and never again: what is in the journal is every store's.
        """
        if not any(map(ends, found)):
            return ""
        changes = events_changes(rows.table(found))
        for catalogue in filter(None, (replica.catalogue() for replica in self._replicas)):
            try:
                catalogue.changed(changes)
            except CatalogueError as error:
                return str(error)
        return ""

    def _stamped(self, events: pa.Table) -> Batch:
        """The events with the next stamp; without events there is no new one.

        No stamp is on a full second: a snapshot of what was known before a week's end has all
        before and nothing after its own watermark.
        """
        last = self.state.stamp
        if not events.num_rows:
            return Batch(last, events)
        newest = pc.max(events[c.KNOWN_TIME].cast(pa.int64())).as_py()
        stamp = max(last + 1, newest)
        if stamp % MICROS_PER_SECOND == 0:
            stamp += 1
        return Batch(stamp, rows.stamped(events, stamp))

    def _oldest(self) -> int:
        return max(0, self.state.stamp - self._pace.remembered)

    def _catch_up(self) -> None:
        for replica in self._replicas:
            replica.catch_up(self._history.after)

    def _full(self) -> bool:
        journal, pace = self._journal, self._pace
        old = journal.age >= pace.segment_seconds and journal.batches > 0
        return old or journal.size >= pace.segment_bytes

    def _seal(self) -> None:
        """Closed segments into the lake, the oldest first, and out of the journal."""
        for number in self._journal.closed():
            events = [batch.events for batch in self._journal.read(number)]
            try:
                if events:
                    event_lake.write(self._lake, number, pa.concat_tables(events))
                self._journal.remove(number)
            except OSError as error:
                raise ServiceError(f"{self._lake}: segment {number}: {error.strerror}") from None

    def close(self) -> None:
        """Put what was taken into the lake and let go of the journal."""
        if self._journal.batches:
            self._journal.open(self._journal.number + 1)
        self._seal()
        self._journal.close()
