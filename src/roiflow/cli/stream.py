"""`roiflow stream`: events into the online stores and the lake, and how far that is."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roiflow.cli.terminal import here
from roiflow.errors import RoiflowError

if TYPE_CHECKING:
    from rich.table import Table

    from roiflow.bundle import Bento
    from roiflow.params import Params, StreamParams
    from roiflow.settings import Settings
    from roiflow.stream.arrivals import Arrivals, DeadLetters
    from roiflow.stream.consumer import Consumer, Pace
    from roiflow.stream.journal import State
    from roiflow.stream.kafka import Topic
    from roiflow.stream.replica import Replica

EVENTS, DEAD_LETTERS = "roiflow.events", "roiflow.dead-letters"
JOURNAL, LETTERS, SENT = "journal", "dead-letters", "sent.json"
LOOK_SECONDS = 1.0
"""So often a consumer asks what is deployed."""

stream = typer.Typer(
    name="stream",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Events of the slate service and of other producers: each counts once.

They come from Kafka where `ROIFLOW_KAFKA` names its servers, else from the served log.
""",
)


@stream.command()
def consume(
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="Stop when nothing came for so many seconds.")
    ] = None,
) -> None:
    """Take events into every deployed package's online store and into the lake, until stopped.

    A second consumer is refused. After a kill it goes on where it was; nothing counts twice.

        roiflow stream consume

        roiflow stream consume --until-idle 5
    """
    from roiflow.params import load_params
    from roiflow.stream.stepping import keep_stepping

    repository, settings, console = here()
    consumer = _consumer(settings, load_params(repository / "params.yaml"))
    idle = _Idle(until_idle)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    followed = _Followed(settings, consumer, say)

    def step() -> None:
        followed.look()
        idle.took(consumer.step())

    # Without a store: which packages are deployed is looked up in the first step and then over and
    # over, and events are taken into the journal even where none is.
    consumer.start([])
    with _until_stopped() as stopped:
        keep_stepping(step, lambda: stopped() or idle.over(), say)
    consumer.close()
    taken = ", ".join(f"{name} {count:,}" for name, count in sorted(consumer.state.counts.items()))
    say(f"since the beginning: {taken or 'nothing'}")


@stream.command()
def forward(
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="Stop when nothing came for so many seconds.")
    ] = None,
) -> None:
    """Send the served log to Kafka, until stopped; a topic made anew is sent all of it again.

    roiflow stream forward
    """
    from roiflow.errors import ServiceError
    from roiflow.params import load_params
    from roiflow.stream.forward import Forwarder
    from roiflow.stream.kafka import Sender
    from roiflow.stream.served_tail import ServedLogArrivals
    from roiflow.stream.stepping import keep_stepping

    repository, settings, console = here()
    params = load_params(repository / "params.yaml").stream
    if settings.kafka is None:
        raise ServiceError("no broker: set ROIFLOW_KAFKA, such as 127.0.0.1:9092")
    # How far the log was sent is kept there, and no consumer of this home may have made the folder.
    settings.stream.mkdir(parents=True, exist_ok=True)
    forwarder = Forwarder(
        ServedLogArrivals(settings.served),
        Sender(_topic(settings.kafka, EVENTS, params)),
        settings.stream / SENT,
    )
    idle = _Idle(until_idle)
    with _until_stopped() as stopped:
        keep_stepping(
            lambda: idle.took(forwarder.step(params.batch_events, params.batch_ms / 1e3)),
            lambda: stopped() or idle.over(),
            lambda text: console.print(text, highlight=False, soft_wrap=True),
        )


@stream.command()
def status() -> None:
    """How far the consumer is: what was taken and refused, and how old the newest event is."""
    from roiflow.data import event_lake
    from roiflow.stream.journal import last_state, numbers

    _, settings, console = here()
    # From the files that a consumer leaves: asking takes no lock, whether one runs or not.
    journal = settings.stream / JOURNAL
    segments = len(numbers(journal))
    parts = len(event_lake.parts(settings.lake))
    console.print(_state_table(last_state(journal)))
    console.print(f"{segments} segments in {journal}, {parts} parts in the lake", soft_wrap=True)
    for replica in _replicas(settings, {}).values():
        console.print(f"store of {replica.name}: {replica.watermark()}", soft_wrap=True)


def _state_table(state: "State") -> "Table":
    from datetime import UTC, datetime

    from rich.table import Table

    newest = datetime.fromtimestamp(state.stamp / 1e6, UTC)
    title = f"known up to {newest:%Y-%m-%d %H:%M:%S} UTC" if state.stamp else "nothing was taken"
    table = Table("events", "since the beginning", title=title)
    for name, count in sorted(state.counts.items()):
        table.add_row(name, f"{count:,}")
    return table


def _consumer(settings: "Settings", params: "Params") -> "Consumer":
    from roiflow.stream.checks import Limits
    from roiflow.stream.consumer import Consumer
    from roiflow.stream.journal import Journal

    arrivals, letters = _ends(settings, params.stream)
    return Consumer(
        arrivals,
        letters,
        Journal(settings.stream / JOURNAL),
        settings.lake,
        Limits.of(params.stream, params.validate_),
        _pace(params.stream),
        lambda: time.time_ns() // 1000,
    )


def _pace(params: "StreamParams") -> "Pace":
    from roiflow.data.weeks import MICROS_PER_HOUR
    from roiflow.stream.consumer import Pace

    return Pace(
        batch_events=params.batch_events,
        batch_seconds=params.batch_ms / 1e3,
        segment_bytes=params.segment_mb << 20,
        segment_seconds=params.segment_seconds,
        remembered=int(params.duplicate_hours * MICROS_PER_HOUR),
    )


def _ends(settings: "Settings", params: "StreamParams") -> "tuple[Arrivals, DeadLetters]":
    if settings.kafka:
        from roiflow.stream.kafka import KafkaArrivals, KafkaDeadLetters

        topic = _topic(settings.kafka, EVENTS, params)
        return KafkaArrivals(topic), KafkaDeadLetters(_topic(settings.kafka, DEAD_LETTERS, params))
    from roiflow.stream.dead_letters import FileDeadLetters
    from roiflow.stream.served_tail import ServedLogArrivals

    return ServedLogArrivals(settings.served), FileDeadLetters(settings.stream / LETTERS)


def _topic(servers: str, name: str, params: "StreamParams") -> "Topic":
    from roiflow.stream.kafka import Topic

    return Topic(servers, name, params.partitions)


def _replicas(settings: "Settings", known: "dict[str, Replica]") -> "dict[str, Replica]":
    """A store of every deployed package, by Bento and address; those that are known stay."""
    from roiflow.bundle import find_bento
    from roiflow.deployment.placed import current

    home = settings.home.absolute()
    arms = current(home)
    # Nothing deployed needs no Redis: a consumer may start before everything else.
    url = _redis(settings, home) if arms else ""
    # With the address in the name: the same Bento at another Redis is another store, which begins
    # with the snapshot.
    names = {f"{arm.tag} at {url}": arm.tag for arm in arms}
    return {
        name: known.get(name) or _replica(name, home, find_bento(tag, home), url)
        for name, tag in names.items()
    }


def _replica(name: str, home: Path, bento: "Bento", url: str) -> "Replica":
    from roiflow.deployment.release import online_store, snapshot_of
    from roiflow.online.snapshot import load_snapshot
    from roiflow.stream.replica import Replica

    store, snapshot = online_store(bento, url), snapshot_of(home, bento)
    return Replica(name, store, lambda: load_snapshot(store, snapshot), time.monotonic)


def _redis(settings: "Settings", home: Path) -> str:
    """The named server, or the embedded one, whether it runs or not."""
    from roiflow.deployment import processes
    from roiflow.errors import ServiceError

    if settings.redis_url:
        return settings.redis_url
    for record in processes.recorded(home):
        if record.name == "redis":
            return record.address
    raise ServiceError("no online store: set ROIFLOW_REDIS_URL, such as redis://127.0.0.1:6379/0")


class _Followed:
    """The stores of what is deployed, as that changes. A fault is said once."""

    def __init__(
        self, settings: "Settings", consumer: "Consumer", say: Callable[[str], None]
    ) -> None:
        self._settings, self._consumer, self._say = settings, consumer, say
        self._replicas: dict[str, Replica] = {}
        self._said: dict[str, str] = {}
        self._look_at = 0.0

    def look(self) -> None:
        """Let the consumer follow what is deployed now, if it is time to ask."""
        if time.monotonic() < self._look_at:
            return
        # Set before it looks: a fault would otherwise be met again at every step.
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            found = _replicas(self._settings, self._replicas)
        # A deployment that is half done, or a Redis that is not up, must not stop events from being
        # taken: it is said, and looked at again.
        except RoiflowError as error:
            self._tell("what is deployed", str(error))
            return
        if found.keys() != self._replicas.keys():
            self._replicas = found
            self._consumer.follow(list(found.values()))
        for name, replica in found.items():
            self._tell(f"store of {name}", replica.fault)

    def _tell(self, what: str, fault: str) -> None:
        if fault != self._said.get(what, ""):
            self._say(f"{what}: {fault or 'up to date again'}")
        self._said[what] = fault


class _Idle:
    """Whether nothing came for a while."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def took(self, count: int) -> None:
        """So many came."""
        if count:
            self._last = time.monotonic()

    def over(self) -> bool:
        """Never without a limit."""
        return self._seconds is not None and time.monotonic() - self._last > self._seconds


@contextmanager
def _until_stopped() -> Iterator[Callable[[], bool]]:
    """Yields whether SIGTERM or SIGINT came; inside they end nothing by themselves."""
    came: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    # A step that was begun is ended, journal and stores included. To raise inside it would leave
    # half a batch to be found out at the next start.
    before = [signal.signal(number, lambda one, _: came.append(one)) for number in numbers]
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
