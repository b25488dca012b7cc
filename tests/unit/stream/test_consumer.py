"""Each event counts once, whatever arrives, in whatever order, wherever the consumer is killed."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roiflow.catalogue.catalogue import Catalogue
from roiflow.data import event_lake, lake
from roiflow.data.events import EVENT, KIND
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND, Week
from roiflow.errors import ServiceError
from roiflow.stream import journal as journal_module
from roiflow.stream.arrivals import Arrived, Letter, Position
from roiflow.stream.consumer import Consumer, Pace
from roiflow.stream.events import Event
from roiflow.stream.journal import Journal, State, last_state
from roiflow.stream.replica import Replica
from tests.unit.stream.streams import (
    LIMITS,
    MONDAY,
    NOW,
    PACE,
    Counts,
    Letters,
    Partitions,
    behaviour,
    click,
    consumer,
    conversion,
    drain,
    encode,
    ids,
    random_events,
    slate,
    taken,
    truth,
)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed loses no write; waiting for the disk would only take time."""
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def arrivals(events: Sequence[Event], partitions: int = 3, seed: int = 0) -> Partitions:
    payloads = encode(events)
    lists = [payloads[number::partitions] for number in range(partitions)]
    return Partitions(lists, random.Random(seed))


def test_every_event_counts_once_in_the_stores_and_in_the_lake(tmp_path: Path) -> None:
    events = random_events(1, 60)
    stores = [Counts(), Counts()]
    one = consumer(tmp_path, arrivals(events), stores)
    assert drain(one) == len(events)
    assert stores[0].counts == stores[1].counts == truth(events)
    assert taken(tmp_path) == ids(events)
    one.close()
    parts = event_lake.parts(tmp_path / "lake")
    assert len(parts) > 2
    found = pa.concat_tables([part.read() for part in parts])
    assert [found.num_rows, *found["known_time"].cast(pa.int64()).to_pylist()] == [
        len(events),
        *sorted(found["known_time"].cast(pa.int64()).to_pylist()),
    ]
    assert one.state.counts == Counter(kind for kind, _ in ids(events))


def test_stamps_grow_and_are_on_no_full_second(tmp_path: Path) -> None:
    second = MICROS_PER_SECOND
    known = [NOW - 5 * second, NOW - 9 * second, NOW - 5 * second + 1, NOW - second]
    events = [behaviour(f"b{n}", "u", "a", at) for n, at in enumerate(known)]
    store = Counts()
    pace = Pace(1, 0.0, 1 << 20, 1e9, MICROS_PER_DAY)
    drain(consumer(tmp_path, arrivals(events, 1), [store], pace=pace))
    first = NOW - 5 * second + 1
    assert store.batches == [first, first + 1, first + 2, NOW - second + 1]


def test_an_event_of_the_future_within_the_tolerance_happened_when_it_was_known(
    tmp_path: Path,
) -> None:
    ahead = NOW + 30 * MICROS_PER_SECOND
    one = consumer(tmp_path, arrivals([behaviour("b", "u", "a", ahead)]), [])
    drain(one)
    (row,) = one._journal.read(one._journal.number)[0].events.to_pylist()
    assert row["event_time"] == row["known_time"]
    assert one.state.stamp == NOW + 1  # NOW is a full second


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_order_and_any_repetition_come_to_the_same(data: st.DataObject) -> None:
    events = random_events(data.draw(st.integers(0, 5)), 12)
    again = data.draw(st.lists(st.sampled_from(events), max_size=20))
    arriving = data.draw(st.permutations([*events, *again]))
    partitions = data.draw(st.integers(1, 3))
    store = Counts()
    with TemporaryDirectory() as place:
        folder = Path(place)
        source = arrivals(arriving, partitions, data.draw(st.integers(0, 99)))
        for stop in data.draw(st.lists(st.integers(0, 3), max_size=3)):  # it starts anew, too
            one = consumer(folder, source, [store])
            for _ in range(stop):
                one.step()
            one._journal.close()
        one = consumer(folder, source, [store])
        drain(one)
        assert taken(folder) == ids(events)
        assert store.counts == truth(events)
        assert one.state.counts.get("duplicate", 0) == len(again)
        one.close()
        assert taken(folder) == ids(events)


class Killed(BaseException):
    """As SIGKILL: nothing that comes after it runs."""


class Bomb:
    """Goes off at one of the moments between two effects."""

    def __init__(self, at: int) -> None:
        self.at, self.passed = at, 0

    def tick(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            raise Killed


class Fragile:
    """The ends of a consumer with a bomb before and after each effect."""

    def __init__(self, bomb: Bomb, store: Counts, source: Partitions, letters: Letters) -> None:
        self._bomb, self._store, self._source, self._letters = bomb, store, source, letters

    def _between(self, effect: Callable[[], object]) -> None:
        self._bomb.tick()
        effect()
        self._bomb.tick()

    def watermark(self) -> int | None:
        return self._store.watermark()

    def catalogue(self) -> Catalogue:
        return self._store.catalogue()

    def update(self, tables: Mapping[str, pa.Table], stamp: int, after: int | None = None) -> bool:
        self._between(lambda: self._store.update(tables, stamp, after))
        return True

    def seek(self, position: Position) -> None:
        self._source.seek(position)

    def poll(self, limit: int, seconds: float) -> Arrived:
        return self._source.poll(limit, seconds)

    def commit(self, position: Position) -> None:
        self._between(lambda: self._source.commit(position))

    def put(self, letters: Sequence[Letter]) -> None:
        self._between(lambda: self._letters.put(letters))


@pytest.fixture
def blasted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Bomb], None]]:
    """Puts a bomb around every write of journal and lake, and one in the middle of a frame."""
    write, write_part, unlink = journal_module._write, lake.write_parquet, Path.unlink

    def plant(bomb: Bomb) -> None:
        def torn(file: int, at: int, state: State, body: bytes) -> int:
            bomb.tick()
            end = write(file, at, state, body)
            size = os.fstat(file).st_size
            os.ftruncate(file, at + (size - at) // 2)
            bomb.tick()
            end = write(file, at, state, body)
            bomb.tick()
            return end

        def part(path: Path, rows: pa.Table) -> None:
            bomb.tick()
            write_part(path, rows)
            bomb.tick()

        def remove(path: Path, missing_ok: bool = False) -> None:
            if path.suffix == ".journal":
                bomb.tick()
            unlink(path, missing_ok)

        monkeypatch.setattr(journal_module, "_write", torn)
        monkeypatch.setattr(lake, "write_parquet", part)
        monkeypatch.setattr(Path, "unlink", remove)

    yield plant
    monkeypatch.undo()


def stream_of(seed: int) -> tuple[list[Event], Partitions]:
    """Events over the end of a week, some of them twice, and some nonsense."""
    events = random_events(seed, 14, end=MONDAY + 6 * MICROS_PER_HOUR)
    rng = random.Random(seed)
    lists: list[list[bytes]] = [[], []]
    for payload in [*encode(events), *encode(events)[::3], b"{", b'{"kind":"click"}']:
        lists[rng.randrange(2)].append(payload)
    return events, Partitions(lists, random.Random(0))


def fly(folder: Path, bomb: Bomb, parts: tuple[Counts, Partitions, Letters]) -> Consumer:
    """Run until the stream is read or the bomb goes off, then put everything into the lake."""
    fragile = Fragile(bomb, *parts)
    pace = Pace(5, 0.0, 3_000, 1e9, 7 * MICROS_PER_DAY)
    journal = Journal(folder / "journal")
    try:
        one = Consumer(fragile, fragile, journal, folder / "lake", LIMITS, pace, lambda: NOW)
        one.start([Replica("s", fragile, lambda: None, lambda: 0.0)])
        drain(one)
        one.close()
    except Killed:
        journal._lock.close()
        journal._close()
        raise
    return one


def moments(folder: Path, plant: Callable[[Bomb], None]) -> int:
    bomb = Bomb(-1)
    plant(bomb)
    _, source = stream_of(3)
    fly(folder, bomb, (Counts(), source, Letters()))
    return bomb.passed


def check_all(folder: Path, events: list[Event], store: Counts, one: Consumer) -> None:
    assert taken(folder) == ids(events)
    assert store.counts == truth(events)
    kinds = Counter(kind for kind, _ in ids(events))
    bad = {"duplicate": len(events[::3]), "malformed": 1, "schema": 1}
    assert one.state.counts == kinds | bad


@pytest.mark.proof
def test_killed_between_any_two_effects_it_goes_on_rightly(
    tmp_path: Path, blasted: Callable[[Bomb], None], full: bool
) -> None:
    last = moments(tmp_path / "whole", blasted)
    assert last > 60
    for at in range(1, last + 1, 1 if full else 4):
        folder = tmp_path / str(at)
        events, source = stream_of(3)
        parts = (Counts(), source, Letters())
        bomb = Bomb(at)
        blasted(bomb)
        with pytest.raises(Killed):
            fly(folder, bomb, parts)
        one = fly(folder, Bomb(-1), parts)
        check_all(folder, events, parts[0], one)
        reasons = {letter.source: letter.reason for letter in parts[2].letters}
        assert sorted(reasons.values()) == ["malformed", "schema"]


@pytest.mark.proof
def test_killed_again_and_again_while_the_store_loses_its_memory(
    tmp_path: Path, blasted: Callable[[Bomb], None], full: bool
) -> None:
    rng = random.Random(4)
    for run in range(300 if full else 8):
        folder = tmp_path / str(run)
        events, source = stream_of(run)
        parts = (Counts(), source, Letters())
        for _ in range(rng.randrange(1, 8)):
            bomb = Bomb(rng.randrange(1, 40))
            blasted(bomb)
            with suppress(Killed):
                fly(folder, bomb, parts)
            if rng.random() < 0.3:
                parts[0].empty()
        blasted(Bomb(-1))
        one = fly(folder, Bomb(-1), parts)
        check_all(folder, events, parts[0], one)


def test_a_store_that_is_away_is_caught_up_when_it_is_back(tmp_path: Path) -> None:
    events, now = random_events(2, 60), [0.0]
    here, away = Counts(), Counts()
    one = consumer(tmp_path, arrivals(events), [here, away], clock=lambda: now[0])
    one.step()
    away.away = True
    for _ in range(4):
        one.step()
    assert [replica.behind for replica in one.replicas] == [False, True]
    assert one.replicas[1].fault == "gone"
    away.away, before = False, away.counts.copy()
    one.step()
    assert away.counts == before  # it is not asked again at once
    now[0] = 10.0
    drain(one)
    assert here.counts == away.counts == truth(events)


def test_a_store_that_lost_its_memory_gets_its_snapshot_and_all_that_came_since(
    tmp_path: Path,
) -> None:
    events, store = random_events(2, 60), Counts()
    loaded = []
    one = consumer(tmp_path, arrivals(events), [])

    def load() -> None:
        loaded.append(1)
        store.counts["snapshot", "u"], store.stamp = 1, MONDAY

    one.follow([Replica("s", store, load, lambda: 0.0)])
    for _ in range(5):
        one.step()
    store.empty()
    drain(one)
    assert store.counts == truth(events) + Counter({("snapshot", "u"): 1})
    assert len(loaded) == 2


def test_a_snapshot_that_knows_events_already_gets_only_later_ones(tmp_path: Path) -> None:
    events = [behaviour(f"b{n}", "u", "a", NOW - 1000 + n) for n in range(30)]
    one = consumer(tmp_path, arrivals(events, 1), [])
    drain(one)
    store = Counts()
    store.stamp = one.state.stamp - 12
    later = list(one._history.after(store.stamp))
    one.follow([Replica("s", store, lambda: None, lambda: 0.0)])
    expected = sum(batch.events.num_rows for batch in later)
    assert sum(store.counts.values()) == expected
    assert 0 < expected < 30


def fault_of(one: Consumer) -> str:
    try:
        one.step()
    except ServiceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("what", ["journal", "lake", "letters"])
def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    events, store = random_events(5, 40), Counts()
    source = arrivals(events)
    source._partitions = [*source._partitions[1:], [*source._partitions[0], b"nonsense"]]
    letters = Letters()
    one = consumer(tmp_path, source, [store], letters=letters)
    one.step()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse_letters(_: object) -> None:
        raise ServiceError("No space left on device")

    with monkeypatch.context() as broken:
        if what == "journal":
            broken.setattr(journal_module, "_write", refuse)
        elif what == "lake":
            broken.setattr(lake, "write_parquet", refuse)
        else:
            broken.setattr(letters, "put", refuse_letters)
        faults = [fault for _ in range(12) if (fault := fault_of(one))]
    assert faults
    assert all("No space left" in fault for fault in faults)
    drain(one)
    assert one.state.counts["malformed"] == 1
    assert taken(tmp_path) == ids(events)
    assert store.counts == truth(events)


def test_only_one_consumes(tmp_path: Path) -> None:
    one = consumer(tmp_path, arrivals([]), [])
    with pytest.raises(ServiceError, match=rf"process {os.getpid()} consumes already"):
        consumer(tmp_path, arrivals([]), [])
    one.close()
    consumer(tmp_path, arrivals([]), []).close()


def test_segments_go_to_the_lake_by_age(tmp_path: Path) -> None:
    now = [0.0]
    journal = Journal(tmp_path / "journal", clock=lambda: now[0])
    pace = Pace(5, 0.0, 1 << 30, 60.0, MICROS_PER_DAY)
    one = consumer(tmp_path, arrivals(random_events(1, 10)), [], pace=pace, journal=journal)
    drain(one)
    assert event_lake.parts(tmp_path / "lake") == []
    now[0] = 61.0
    one.step()
    assert len(event_lake.parts(tmp_path / "lake")) == 1
    now[0] = 200.0
    one.step()  # nothing came: there is nothing to put there
    assert len(event_lake.parts(tmp_path / "lake")) == 1
    assert len(journal.numbers()) == 1


def test_a_segment_over_the_end_of_a_week_has_a_part_in_each(tmp_path: Path) -> None:
    events = [behaviour(f"b{n}", "u", "a", MONDAY - 3 + n) for n in range(6)]
    pace = Pace(1, 0.0, 1 << 30, 1e9, MICROS_PER_DAY)
    one = consumer(tmp_path, arrivals(events, 1), [], pace=pace)
    drain(one)
    one.close()
    parts = event_lake.parts(tmp_path / "lake")
    assert [(part.number, str(part.week)) for part in parts] == [(0, "2026-W03"), (0, "2026-W04")]
    assert [part.read().num_rows for part in parts] == [3, 3]


def test_a_lost_journal_is_made_anew_from_the_lake(tmp_path: Path) -> None:
    events, store = random_events(5, 40), Counts()
    source = arrivals(events)
    one = consumer(tmp_path, source, [store])
    drain(one)
    one.close()
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    one = consumer(tmp_path, source, [store])
    assert drain(one) == len(events)
    assert one.state.counts == {"duplicate": len(events)}
    assert taken(tmp_path) == ids(events)
    assert store.counts == truth(events)


def test_what_is_too_old_to_tell_from_a_duplicate_is_late(tmp_path: Path) -> None:
    pace = Pace(1, 0.0, 1 << 30, 1e9, 2 * MICROS_PER_HOUR)
    old = behaviour("old", "u", "a", NOW - 3 * MICROS_PER_HOUR)
    events = [old, behaviour("new", "u", "a", NOW), old]
    letters = Letters()
    one = consumer(tmp_path, arrivals(events, 1), [], pace=pace, letters=letters)
    drain(one)
    assert one.state.counts == {"behaviour": 2, "late": 1}
    assert "too old to tell" in letters.letters[0].detail


HOSTILE: dict[str, list[bytes]] = {
    "malformed": [
        b"",
        b"{",
        b"\x00",
        b"\xff\xfe{}",
        b'{"kind":"click","impression_id":"\xff","event_time":5}',
        b'{"kind":"click","impression_id":"a\\ud800","event_time":5}',
        b'{"kind":"conversion","impression_id":"a","revenue_micros":NaN,"event_time":5}',
        b'{"kind":"click","impression_id":"a\x00b","event_time":5}',
        b'{"x":' * 5_000,
        b"[" * 60_000,
        b'{"kind":"click","impression_id":"a","event_time":5}{}',
    ],
    "schema": [
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b'{"kind":"view"}',
        b'{"kind":7}',
        b'{"kind":"click","impression_id":"","event_time":5}',
        b'{"kind":"click","impression_id":-7,"event_time":5}',
        b'{"kind":"click","impression_id":"a\\u0000b","event_time":5}',
        b'{"kind":"click","impression_id":"a\x7f","event_time":5}',
        b'{"kind":"click","impression_id":"a\xc2\x85","event_time":5}',
        b'{"kind":"click","impression_id":"a"}',
        b'{"kind":"click","impression_id":"a","event_time":-5}',
        b'{"kind":"click","impression_id":"a","event_time":1e300}',
        b'{"kind":"click","impression_id":"a","event_time":99999999999999999999}',
        b'{"kind":"click","impression_id":"a","event_time":true}',
        b'{"kind":"click","impression_id":"a","event_time":5,"colour":"red"}',
        b'{"kind":"conversion","impression_id":"a","revenue_micros":-1,"event_time":5}',
        b'{"kind":"conversion","impression_id":"a","revenue_micros":1e999,"event_time":5}',
    ],
    "oversized": [
        b'{"kind":"click","impression_id":"%s","event_time":5}' % (b"x" * 137),
        b'{"kind":"click","impression_id":"%s","event_time":5}' % (b"x" * 1_000_000),
        b" " * 70_000,
    ],
    "late": encode([click("a", NOW - 3 * MICROS_PER_DAY, NOW)]),
    "future": encode(
        [
            click("a", NOW + MICROS_PER_DAY, NOW),
            click("b", NOW, NOW + MICROS_PER_DAY),
            slate("c", "u", ["a"], NOW + MICROS_PER_DAY),
        ]
    ),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_bad_events_are_dead_letters_with_their_reason_and_good_ones_count(
    tmp_path: Path, reason: str
) -> None:
    good = random_events(1, 10)
    bad = HOSTILE[reason]
    lists = [[*encode(good)[:5], *bad, *encode(good)[5:]]]
    letters, store = Letters(), Counts()
    one = consumer(tmp_path, Partitions(lists, random.Random(0)), [store], letters=letters)
    assert drain(one) == len(good) + len(bad)
    assert [letter.payload for letter in letters.letters] == bad
    assert {letter.reason for letter in letters.letters} == {reason}
    assert one.state.counts[reason] == len(bad)
    assert [letter.source for letter in letters.letters] == [
        f"list/0@{5 + n}" for n in range(len(bad))
    ]
    assert store.counts == truth(good)


def test_the_same_id_in_two_kinds_is_two_events(tmp_path: Path) -> None:
    events: list[Event] = [
        click("r1:1", NOW),
        slate("click:r1:1", "u", ["a"], NOW),
        behaviour("click:r1:1", "u", "a", NOW),
        conversion("r1:1", 5, NOW, event="click:r1:1"),
    ]
    one = consumer(tmp_path, arrivals(events), [])
    drain(one)
    assert len(taken(tmp_path)) == 4


def test_counts_and_position_are_of_the_journal(tmp_path: Path) -> None:
    one = consumer(tmp_path, arrivals(random_events(1, 20)), [])
    drain(one)
    assert last_state(tmp_path / "journal") == one.state
    assert one._arrivals.committed == one.state.position  # type: ignore[attr-defined]
    one.close()
    assert last_state(tmp_path / "journal") == one.state


def test_the_lake_holds_what_a_slate_said(tmp_path: Path) -> None:
    one = consumer(tmp_path, arrivals([slate("r1", "u1", ["a1", "a2"], NOW)]), [])
    drain(one)
    one.close()
    (part,) = event_lake.parts(tmp_path / "lake")
    assert part.week == Week.parse("2026-W04")
    (row,) = part.read().to_pylist()
    assert (row[KIND], row[EVENT], row["user_id"]) == ("slate", "r1", "u1")
    assert (row["policy_version"], row["click_share"]) == ("v1", 0.5)
    assert [ad["ad_id"] for ad in row["ads"]] == ["a1", "a2"]
    assert PACE.remembered == 7 * MICROS_PER_DAY
