"""What the demo's users do."""

from collections import Counter
from dataclasses import replace
from typing import Any

from roiflow.demo.events import EventsDone, events_table, outcomes
from roiflow.demo.requests import Answered
from roiflow.stream.events import Behaviour, Click, Conversion
from tests.unit.demo.test_tables import shown


def slate(number: int) -> Answered:
    return Answered(f"q{number}", "u1", 5_000_000, (f"q{number}:1", "a1"))


def test_every_fifth_slate_is_clicked_every_twenty_fifth_bought_every_third_viewed() -> None:
    events = [event for number in range(75) for event in outcomes(number, slate(number))]
    assert Counter(event["kind"] for event in events) == {
        "click": 15,
        "conversion": 3,
        "behaviour": 25,
    }
    assert {event["impression_id"] for event in events if event["kind"] == "conversion"} == {
        "q0:1",
        "q25:1",
        "q50:1",
    }
    kinds: dict[str, Any] = {"click": Click, "conversion": Conversion, "behaviour": Behaviour}
    for event in events:
        fields = {name: value for name, value in event.items() if name != "kind"}
        assert kinds[str(event["kind"])](**fields).event_time > 5_000_000


def test_an_empty_slate_has_no_outcome() -> None:
    assert list(outcomes(0, replace(slate(0), first=None))) == []


def test_the_table_names_every_count() -> None:
    text = shown(events_table(EventsDone(9, 1, {"click": 3, "late": 1}, 0.25)))
    for word in ("reported", "refused", "click", "late", "0.25"):
        assert word in text
