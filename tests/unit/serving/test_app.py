"""The slate route's contract: what it takes, refuses, answers and logs."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from roiflow.errors import ServiceError
from roiflow.online.given import hashes, sampled
from roiflow.ranking.value import CostShares
from roiflow.serving.app import MAX_SLATE_BYTES, WARM_UP_SLATES, SlateApp, Version
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.stream.arrivals import Arrived
from roiflow.stream.checks import Limits
from roiflow.stream.duplicates import Seen
from roiflow.stream.events import Event, Slate
from roiflow.stream.intake import take_in
from roiflow.stream.rows import table
from roiflow.stream.served_log import EventLog, read, segments
from tests.full_disk import no_file_over

NOW = 1_800_000_000_000_000
HOUR = 3_600_000_000
LIMITS = Limits(
    lateness=2 * HOUR, tolerance=1_000_000, message_bytes=2_000, amount=10**15, slate=1_000
)
SHARES = CostShares(0.0, 1.0, 0.0)
BODY = {"request_id": "r1", "user_id": "ann", "placement": "top", "device": "phone"}


class Planted:
    """Shows ad `a<length of the user's id>`, then one more, then an empty slot."""

    def __init__(self) -> None:
        self.degraded = False
        self.left = ""
        """Why there is nothing to show, where there is not."""
        self.seen: list[RequestContexts] = []

    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        self.seen.append(contexts)
        ids = np.array([[f"a{len(user)}", "b", ""] for user in contexts.user_ids], object)
        size = (len(contexts.user_ids), 1)
        one = np.tile([[0.5, 0.25, 1.0]], size)
        rows = np.tile(np.array([[-1, -1, -1] if self.left else [0, 1, -1]]), size)
        bid = np.tile(np.array([[10, 20, 0]]), size)
        as_of, vectors = np.full(size[0], NOW - 5), np.full((size[0], 12), 7, np.uint8)
        maps = np.full(size[0], "0f" * 32, object)
        some = (one, one / 10, one / 100, one, one * 8)
        slates = Slates(rows, ids, *some, bid, as_of, maps, vectors)
        return slates, self.degraded

    def check(self, at: int) -> None:
        if self.left:
            raise ServiceError(self.left)


@pytest.fixture
def maker() -> Planted:
    return Planted()


@pytest.fixture
def app(maker: Planted, tmp_path: Path) -> SlateApp:
    log = EventLog(tmp_path / "served")
    version = Version("v7", "digest", "2026-W04")
    app = SlateApp(maker, log, version, SHARES, LIMITS, now=lambda: NOW)
    app.start()
    maker.seen.clear()
    return app


def call(app: SlateApp, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def post(app: SlateApp, body: Any, path: str = "/v1/slate", **options: Any) -> httpx.Response:
    return call(app, "POST", path, content=msgspec.json.encode(body), **options)


def test_a_slate(app: SlateApp, maker: Planted) -> None:
    answer = post(app, BODY)
    assert answer.status_code == 200
    first = {
        "ad_id": "a3",
        "impression_id": "r1:1",
        "position": 1,
        "propensity": 0.5,
        "bid_micros": 10,
        "p_click": 0.05,
        "expected_value_micros": 4.0,
    }
    second = {
        "ad_id": "b",
        "impression_id": "r1:2",
        "position": 2,
        "propensity": 0.25,
        "bid_micros": 20,
        "p_click": 0.025,
        "expected_value_micros": 2.0,
    }
    assert answer.json() == {
        "request_id": "r1",
        "policy_version": "v7",
        "degraded": False,
        "ads": [first, second],
    }
    assert maker.seen[0].event_time.tolist() == [NOW]


def test_what_is_served_is_logged_with_its_arm(app: SlateApp, tmp_path: Path) -> None:
    post(app, BODY, headers={"X-Arm": "canary"})
    post(app, BODY | {"request_id": "r2", "event_time": 5_000, "known_time": 5_000})
    assert report(app, {"kind": "click", "impression_id": "r1:2"})["accepted"] == 1
    app.close()
    rows = read(tmp_path / "served", 0, NOW + 1)["impressions"].to_pylist()
    assert [row["impression_id"] for row in rows] == ["r2:1", "r2:2", "r1:1", "r1:2"]
    assert [row["arm"] for row in rows] == ["stable", "stable", "canary", "canary"]
    assert [row["propensity"] for row in rows] == [0.5, 0.25, 0.5, 0.25]
    assert [row["cost_micros"] for row in rows] == [0, 0, 0, 20]


def slates(folder: Path) -> list[Slate]:
    decoder = msgspec.json.Decoder(Event)
    lines = (line for path in segments(folder) for line in path.read_bytes().splitlines())
    return [event for line in lines if isinstance(event := decoder.decode(line), Slate)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_a_slate_was_made_from_is_logged(maker: Planted, tmp_path: Path, share: float) -> None:
    """The hash of every slate, the vector of the sampled ones, neither of a degraded one."""
    log = EventLog(tmp_path / "served")
    version = Version("v7", "digest", "2026-W04")
    app = SlateApp(maker, log, version, SHARES, LIMITS, lambda: NOW, feature_sample=share)
    for number in range(40):
        maker.degraded = number == 39
        app.answer(msgspec.json.encode(BODY | {"request_id": f"r{number}"}))
    app.close()
    *made, degraded = slates(tmp_path / "served")
    assert {slate.as_of for slate in made} == {NOW - 5}
    assert {slate.features for slate in made} == {hashes(np.full((1, 12), 7, np.uint8))[0]}
    kept = {slate.request_id: slate.vector for slate in made if slate.vector is not None}
    assert set(kept.values()) <= {bytes([7]) * 12}
    assert set(kept) == {slate.request_id for slate in made if sampled(slate.request_id, share)}
    assert {0.0: len(kept) == 0, 0.5: 8 < len(kept) < 32, 1.0: len(kept) == 39}[share]
    assert (degraded.as_of, degraded.features, degraded.vector) == (None, None, None)


def test_a_log_from_before_features_were_logged_is_read() -> None:
    line = (
        b'{"kind":"slate","request_id":"r","user_id":"u","event_time":5,"known_time":5,'
        b'"placement":"p","device":"d","arm":"a","degraded":false,"policy_version":"v",'
        b'"impression_share":0,"click_share":1,"conversion_share":0,"ads":[]}'
    )
    old = msgspec.json.decode(line, type=Slate)
    assert (old.as_of, old.features, old.vector) == (None, None, None)
    assert table([old])["vector"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"user_id": 7}, "Expected `str`, got `int` - at `$.user_id`: value 7"),
        ({"user_id": ""}, "length >= 1 - at `$.user_id`: value ''"),
        ({"device": None}, "at `$.device`: value None"),
        ({"event_time": -1}, "Expected `int` >= 1 - at `$.event_time`: value -1"),
        ({"event_time": "x"}, "at `$.event_time`: value 'x'"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(
    app: SlateApp, maker: Planted, change: dict[str, Any], text: str
) -> None:
    answer = post(app, BODY | change)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert not maker.seen


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ((NOW + 2_000_000, None), f"event_time is more than 1 s after known_time {NOW}: value"),
        (
            (NOW - 3 * HOUR, None),
            f"event_time is 3 hours late, over 2 hours: value {NOW - 3 * HOUR}",
        ),
        ((None, NOW - HOUR), f"event_time is more than 1 s after known_time {NOW - HOUR}"),
        ((NOW, NOW + 2_000_000), f"known_time is more than 1 s after now, {NOW}: value"),
        ((NOW + 500_000, None), ""),
        ((NOW - HOUR, None), ""),
        ((NOW - HOUR, NOW - HOUR + 5), ""),
        ((5_000, 5_000), ""),  # a replay of dated requests
    ],
)
def test_what_the_consumer_would_not_take_is_not_served(
    app: SlateApp, tmp_path: Path, times: tuple[int | None, int | None], text: str
) -> None:
    dated = dict(zip(("event_time", "known_time"), times, strict=True))
    answer = post(app, BODY | dated)
    path = segments(tmp_path / "served")[0]
    found = Arrived([*path.read_bytes().splitlines()], [NOW], ["served"], {})
    if text:
        assert answer.status_code == 400
        assert text in answer.json()["error"]
        assert found.payloads == []
    else:
        assert answer.status_code == 200
        taken = take_in(found, Seen(), now=NOW, oldest=0, limits=LIMITS)
        assert (taken.letters, taken.events.num_rows) == ([], 1)


def test_a_slate_too_large_for_the_consumer_is_not_served(maker: Planted, tmp_path: Path) -> None:
    log, version = EventLog(tmp_path), Version("v7", "digest", "2026-W04")

    def answer(longest: int) -> httpx.Response:
        limits = msgspec.structs.replace(LIMITS, message_bytes=longest)
        return post(SlateApp(maker, log, version, SHARES, limits, lambda: NOW), BODY)

    assert answer(2_000).status_code == 200
    size = len(segments(tmp_path)[0].read_bytes().rstrip(b"\n"))
    assert answer(size).status_code == 200
    refused = answer(size - 1)
    assert refused.status_code == 503
    assert f"an event of {size} bytes is over {size - 1}, stream.message_kb" in refused.text
    assert len(slates(tmp_path)) == 2


@pytest.mark.parametrize("field", ["request_id", "user_id", "placement", "device"])
def test_a_missing_field_is_named(app: SlateApp, field: str) -> None:
    answer = post(app, {key: value for key, value in BODY.items() if key != field})
    assert answer.status_code == 400
    assert f"missing required field `{field}`" in answer.json()["error"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xff", b'"text"'])
def test_what_is_no_json_object_is_refused(app: SlateApp, content: bytes) -> None:
    assert call(app, "POST", "/v1/slate", content=content).status_code == 400


def test_a_body_over_the_limit_is_refused_with_and_without_its_length(app: SlateApp) -> None:
    async def chunks() -> Any:
        for _ in range(MAX_SLATE_BYTES // 1000 + 1):
            yield b" " * 1000

    announced = call(app, "POST", "/v1/slate", content=b" " * (MAX_SLATE_BYTES + 1))
    streamed = call(app, "POST", "/v1/slate", content=chunks())
    assert announced.status_code == streamed.status_code == 413
    assert str(MAX_SLATE_BYTES + 1) in announced.json()["error"]


CLICK = {"kind": "click", "impression_id": "r1:1"}
CONVERSION = {"kind": "conversion", "impression_id": "r1:1", "revenue_micros": 7}
BEHAVIOUR = {
    "kind": "behaviour",
    "event_id": "b1",
    "user_id": "ann",
    "ad_id": "a3",
    "category_id": "c",
    "action": "cart",
}


def report(app: SlateApp, *events: Any) -> Any:
    answer = post(app, {"events": events}, "/v1/events")
    assert answer.status_code == 200
    return answer.json()


def lines(tmp_path: Path) -> list[Any]:
    text = next((tmp_path / "served").iterdir()).read_text()
    return [msgspec.json.decode(line) for line in text.splitlines()]


def test_every_kind_of_event_is_logged_as_known_now(app: SlateApp, tmp_path: Path) -> None:
    early = BEHAVIOUR | {"event_time": NOW - HOUR, "dwell_ms": 5}
    assert report(app, CLICK, CONVERSION, early) == {"accepted": 3, "refused": []}
    assert [line["kind"] for line in lines(tmp_path)] == ["click", "conversion", "behaviour"]
    assert [line["known_time"] for line in lines(tmp_path)] == [NOW] * 3
    assert [line["event_time"] for line in lines(tmp_path)] == [NOW, NOW, NOW - HOUR]


@pytest.mark.parametrize(
    ("event", "reason", "fault", "value"),
    [
        (CLICK | {"kind": "view"}, "schema", "$.kind", "'view'"),
        ({"impression_id": "r1:1"}, "schema", "`kind`", ""),
        (CONVERSION | {"revenue_micros": -5}, "schema", "$.revenue_micros", "-5"),
        (CONVERSION | {"revenue_micros": 1.5}, "schema", "$.revenue_micros", "1.5"),
        (BEHAVIOUR | {"dwell_ms": "7"}, "schema", "$.dwell_ms", "'7'"),
        (BEHAVIOUR | {"user_id": "a\x00b"}, "schema", "$.user_id", "'a\\x00b'"),
        (CLICK | {"colour": "red"}, "schema", "`colour`", ""),
        (CLICK | {"known_time": NOW + HOUR}, "future", "known_time", str(NOW + HOUR)),
        (7, "schema", "Expected `object`", "7"),
        (CLICK | {"impression_id": "x" * 137}, "oversized", "$.impression_id", repr("x" * 199)),
        (CLICK | {"impression_id": "x" * 3_000}, "oversized", "over 2000 bytes", "3"),
        (CLICK | {"event_time": NOW - 3 * HOUR}, "late", "3 hours late", str(NOW - 3 * HOUR)),
        (CLICK | {"event_time": NOW + 2_000_000}, "future", "known_time", str(NOW + 2_000_000)),
    ],
)
def test_a_bad_event_comes_back_and_the_good_are_taken(
    app: SlateApp, tmp_path: Path, event: Any, reason: str, fault: str, value: str
) -> None:
    answer = report(app, CLICK, event, BEHAVIOUR)
    assert answer["accepted"] == 2
    (refused,) = answer["refused"]
    assert (refused["index"], refused["reason"]) == (1, reason)
    assert fault in refused["fault"]
    assert refused["value"].startswith(value[:137])
    assert [line["kind"] for line in lines(tmp_path)] == ["click", "behaviour"]
    metrics = call(app, "GET", "/metrics").text
    assert "roiflow_events_total 2.0" in metrics
    assert f'roiflow_refused_events_total{{reason="{reason}"}} 1.0' in metrics


def test_text_that_is_no_utf8_is_one_bad_event(app: SlateApp) -> None:
    bad = b'{"kind":"click","impression_id":"\xff"}'
    body = b'{"events":[' + msgspec.json.encode(CLICK) + b"," + bad + b"]}"
    answer = call(app, "POST", "/v1/events", content=body).json()
    assert (answer["accepted"], answer["refused"][0]["reason"]) == (1, "malformed")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"events":[]}', b'{"events":7}', b'{"events":[{]}', b'{"events":[NaN]}',
     b'{"events":[' + b"[" * 50_000, b'{"events":[' + b'{"a":' * 50_000],
)  # fmt: skip
def test_a_body_that_is_no_list_of_events_is_refused(app: SlateApp, content: bytes) -> None:
    assert call(app, "POST", "/v1/events", content=content).status_code == 400


@pytest.mark.parametrize("field", ["request_id", "user_id", "placement", "device"])
@pytest.mark.parametrize("text", ["a\x00", "\n", "\x7f", "\x85"])
def test_a_slate_is_not_served_to_control_characters(
    app: SlateApp, maker: Planted, field: str, text: str
) -> None:
    answer = post(app, BODY | {field: text})
    assert answer.status_code == 400
    assert f"$.{field}" in answer.json()["error"]
    assert not maker.seen


def test_an_arm_that_is_no_name_is_refused(app: SlateApp) -> None:
    assert post(app, BODY, headers={"X-Arm": "x" * 129}).status_code == 400


def test_unknown_paths_and_methods(app: SlateApp) -> None:
    assert call(app, "GET", "/v2/slate").status_code == 404
    assert call(app, "GET", "/v1/slate").status_code == 405
    assert call(app, "POST", "/healthz").status_code == 405


def test_nothing_to_show_is_no_slate_and_not_ready(
    app: SlateApp, maker: Planted, tmp_path: Path
) -> None:
    maker.left = "the catalogue is empty"
    for answer in (post(app, BODY), call(app, "GET", "/readyz")):
        assert answer.status_code == 503
        assert "the catalogue is empty" in answer.json()["error"]
    assert slates(tmp_path / "served") == []
    maker.left = ""
    assert call(app, "GET", "/readyz").status_code == 200
    assert post(app, BODY).status_code == 200


def test_who_starts_with_nothing_to_show_is_warm_before_it_is_ready(
    maker: Planted, tmp_path: Path
) -> None:
    maker.left = "the catalogue is empty"
    version = Version("v7", "digest", "2026-W04")
    app = SlateApp(maker, EventLog(tmp_path), version, SHARES, LIMITS)
    app.start()
    assert call(app, "GET", "/readyz").status_code == 503
    maker.left = ""
    maker.seen.clear()
    assert call(app, "GET", "/readyz").status_code == 200
    assert len(maker.seen) == WARM_UP_SLATES
    assert call(app, "GET", "/readyz").status_code == 200
    assert len(maker.seen) == WARM_UP_SLATES


def test_ready_only_between_start_and_close(maker: Planted, tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    app = SlateApp(maker, log, Version("v7", "digest", "2026-W04"), SHARES, LIMITS)
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").status_code == 503
    app.start()
    assert call(app, "GET", "/readyz").status_code == 200
    app.close()
    assert call(app, "GET", "/readyz").status_code == 503


def test_not_ready_and_no_slate_while_the_log_cannot_be_written(
    app: SlateApp, tmp_path: Path
) -> None:
    assert post(app, BODY).status_code == 200
    with no_file_over(100):
        for _ in range(2):
            answer = call(app, "GET", "/readyz")
            assert answer.status_code == 503
            assert "cannot be written: File too large" in answer.json()["error"]
            assert post(app, BODY | {"request_id": "lost"}).status_code == 503
            assert post(app, {"events": [CLICK]}, "/v1/events").status_code == 503
    assert call(app, "GET", "/readyz").status_code == 200
    assert post(app, BODY | {"request_id": "r2"}).status_code == 200
    assert [slate.request_id for slate in slates(tmp_path / "served")] == ["r1", "r2"]


def test_a_slate_is_in_the_log_before_it_is_answered(app: SlateApp, tmp_path: Path) -> None:
    for number in range(3):
        app.answer(msgspec.json.encode(BODY | {"request_id": f"r{number}"}))
        assert len(slates(tmp_path / "served")) == number + 1


def test_degraded_slates_say_so_and_are_counted(app: SlateApp, maker: Planted) -> None:
    maker.degraded = True
    assert post(app, BODY).json()["degraded"] is True
    metrics = call(app, "GET", "/metrics").text
    assert "roiflow_slates_total 1.0" in metrics
    assert "roiflow_degraded_slates_total 1.0" in metrics
    assert 'roiflow_serving{policy_version="v7",week="2026-W04"} 1.0' in metrics


def test_version(app: SlateApp) -> None:
    assert call(app, "GET", "/v1/version").json() == {
        "policy_version": "v7", "digest": "digest", "week": "2026-W04",
    }  # fmt: skip
