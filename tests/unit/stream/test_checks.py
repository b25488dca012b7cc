"""What is refused, why, and with which value; the consumer's tests have the hostile messages."""

from pathlib import Path

import msgspec
import pytest

from roiflow.errors import ParamsError
from roiflow.stream.checks import Limits, Refused, check_times, parse, reported, value_at
from roiflow.stream.events import Behaviour, Click, Conversion, event_id, impression_id

HOUR = 3_600_000_000
NOW = 1_770_000_000_000_000
LIMITS = Limits(lateness=2 * HOUR, tolerance=1_000_000, message_bytes=500, amount=10**12, slate=3)
CLICK = b'{"kind":"click","impression_id":"r1:1","event_time":5}'


def refusal(payload: bytes) -> Refused:
    with pytest.raises(Refused) as raised:
        parse(payload, LIMITS)
    return raised.value


def test_a_message_is_what_it_says() -> None:
    assert parse(CLICK, LIMITS) == Click(impression_id="r1:1", event_time=5)
    text = (
        b'{"kind":"conversion","impression_id":"r1:1","revenue_micros":7,"event_time":5,'
        b'"known_time":6,"event_id":"\\u00e4\\"\xe2\x82\xac"}'
    )
    found = parse(text, LIMITS)
    assert isinstance(found, Conversion)
    assert (found.known_time, found.event_id) == (6, 'ä"€')


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"kind":"click","impression_id":7,"event_time":5}', "at `$.impression_id`: value 7"),
        (b'{"kind":"view"}', "Invalid value 'view' - at `$.kind`: value 'view'"),
        (b'{"kind":"click","event_time":5}', "missing required field `impression_id`"),
        (b'{"kind":"slate","ads":[{"ad_id":"a"},{"ad_id":-3}]}', "missing required field"),
        (CLICK.replace(b"r1", b"r\\u0000"), "control character - at `$.impression_id`: value"),
    ],
)
def test_a_refusal_names_field_and_value(payload: bytes, text: str) -> None:
    assert refusal(payload).reason == "schema"
    assert text in str(refusal(payload))


def test_a_control_character_in_an_ad_is_found() -> None:
    shown = {"ad_id": "a\nb", "bid_micros": 1, "propensity": 1, "p_click": 0}
    names = ("request_id", "user_id", "placement", "device", "arm", "policy_version")
    shares = ("impression_share", "click_share", "conversion_share")
    slate = {"kind": "slate", "event_time": 5, "degraded": False, "ads": [
        shown | {"ad_id": "a", "expected_value_micros": 1.0},
        shown | {"expected_value_micros": 1.0},
    ]} | dict.fromkeys(names, "x") | dict.fromkeys(shares, 0)  # fmt: skip
    found = refusal(msgspec.json.encode(slate))
    assert (found.reason, found.fault) == ("schema", "control character - at `$.ads[1].ad_id`")


def slate(*bids: int, ad: str = "") -> bytes:
    names = ("request_id", "user_id", "placement", "device", "arm", "policy_version")
    shares = ("impression_share", "click_share", "conversion_share")
    ads = [
        {"ad_id": ad or f"a{at}", "bid_micros": bid, "propensity": 1, "p_click": 0}
        | {"expected_value_micros": 1.0}
        for at, bid in enumerate(bids)
    ]
    content = {"kind": "slate", "event_time": 5, "degraded": False, "ads": ads}
    return msgspec.json.encode(content | dict.fromkeys(names, "x") | dict.fromkeys(shares, 0))


WIDE = msgspec.structs.replace(LIMITS, message_bytes=5_000)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (slate(1, 2, 3, 4), "slate of over 3 ads - at `$.ads`: value 4"),
        (slate(1, 10**12 + 1), "over 1000000000000 micros - at `$.ads[1].bid_micros`: value"),
        (slate(1, 2, ad="a"), "ad again in its slate - at `$.ads[1].ad_id`: value 'a'"),
        (slate(1).replace(b'"click_share":0', b'"click_share":1e300'), "`float` <= 1000.0"),
        (
            b'{"kind":"conversion","impression_id":"r","revenue_micros":1000000000001,'
            b'"event_time":5}',
            "amount over 1000000000000 micros - at `$.revenue_micros`: value 1000000000001",
        ),
    ],
)
def test_what_the_contract_would_set_aside_is_refused(payload: bytes, text: str) -> None:
    with pytest.raises(Refused) as raised:
        parse(payload, WIDE)
    assert raised.value.reason == "schema"
    assert text in str(raised.value)
    if b"slate" not in payload:
        with pytest.raises(Refused, match="amount over"):
            reported(payload, NOW, WIDE)


def test_the_largest_amount_and_slate_are_taken() -> None:
    parse(slate(0, 1, 10**12), WIDE)
    sold = b'{"kind":"conversion","impression_id":"r","revenue_micros":1000000000000}'
    reported(sold, NOW, LIMITS)


def test_limits_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_bytes(LIMITS.content)
    assert Limits.read(path) == LIMITS


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{}", "missing required field `lateness`"),
        (LIMITS.content.replace(b"slate", b"slates"), "unknown field `slates`"),
        (LIMITS.content.replace(b"500", b'"500"'), r"got `str` - at `\$.message_bytes`"),
        (b"{", "truncated"),
    ],
)
def test_limits_that_are_none_are_named(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match=f"limits.json: not the limits of the door: .*{fault}"):
        Limits.read(path)
    with pytest.raises(ParamsError, match=r"none\.json: No such file"):
        Limits.read(tmp_path / "none.json")


def test_limits_are_inclusive() -> None:
    parse(CLICK + b" " * (500 - len(CLICK)), LIMITS)
    assert refusal(CLICK + b" " * (501 - len(CLICK))).reason == "oversized"
    parse(CLICK.replace(b"r1:1", b"x" * 136), LIMITS)
    assert refusal(CLICK.replace(b"r1:1", b"x" * 137)).reason == "oversized"


@pytest.mark.parametrize(
    ("happened", "known", "reason"),
    [
        (NOW - 2 * HOUR, NOW, ""),
        (NOW - 2 * HOUR - 1, NOW, "late"),
        (NOW - 9 * HOUR, NOW - 8 * HOUR, ""),
        (NOW + 1_000_000, NOW, ""),
        (NOW + 1_000_001, NOW, "future"),
        (NOW + 1_000_000, NOW + 1_000_000, ""),
        (NOW + 1_000_001, NOW + 1_000_001, "future"),
    ],
)
def test_times(happened: int, known: int, reason: str) -> None:
    event = Click(impression_id="a", event_time=happened, known_time=known)
    if not reason:
        check_times(event.event_time, event.known_time or NOW, NOW, LIMITS)
        return
    with pytest.raises(Refused) as raised:
        check_times(event.event_time, event.known_time or NOW, NOW, LIMITS)
    assert raised.value.reason == reason


def test_the_door_says_when_an_event_became_known() -> None:
    found = reported(b'{"kind":"click","impression_id":"r1:1"}', NOW, LIMITS)
    assert found == Click(impression_id="r1:1", event_time=NOW, known_time=NOW)
    dated = reported(
        b'{"kind":"click","impression_id":"r1:1","event_time":4,"known_time":5}', NOW, LIMITS
    )
    assert dated == Click(impression_id="r1:1", event_time=4, known_time=5)


def test_ids() -> None:
    assert impression_id("r1", 3) == "r1:3"
    assert event_id(Click(impression_id="r1:1", event_time=5)) == "click:r1:1"
    bought = Conversion(impression_id="r1:1", revenue_micros=1, event_time=5)
    assert event_id(bought) == "conversion:r1:1"
    bought.event_id = "order-7"
    assert event_id(bought) == "order-7"
    seen = Behaviour(
        event_id="b", user_id="u", ad_id="a", category_id="c", action="x", event_time=1
    )
    assert event_id(seen) == "b"


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("x - at `$.a[1].b`", "7"),
        ("x - at `$.a`", "[{'b': 1}, {'b': 7}]"),
        ("x - at `$.c.d`", "None"),
        ("x - at `$`", ""),
        ("x", ""),
    ],
)
def test_the_value_of_a_fault(fault: str, value: str) -> None:
    assert value_at(fault, {"a": [{"b": 1}, {"b": 7}]}) == value
