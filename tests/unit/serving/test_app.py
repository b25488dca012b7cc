"""The slate route's contract: what it takes, refuses, answers and logs."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from roiflow.serving.app import MAX_SLATE_BYTES, SlateApp, Version
from roiflow.serving.event_log import EventLog, Opened, read
from roiflow.serving.slates import RequestContexts, Slates

NOW = 1_800_000_000_000_000
BODY = {"request_id": "r1", "user_id": "ann", "placement": "top", "device": "phone"}


class Planted:
    """Shows ad `a<length of the user's id>`, then one more, then an empty slot."""

    def __init__(self) -> None:
        self.degraded = False
        self.seen: list[RequestContexts] = []

    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        self.seen.append(contexts)
        ids = np.array([[f"a{len(user)}", "b", ""] for user in contexts.user_ids], object)
        size = (len(contexts.user_ids), 1)
        one = np.tile([[0.5, 0.25, 1.0]], size)
        rows = np.tile(np.array([[0, 1, -1]]), size)
        bid = np.tile(np.array([[10, 20, 0]]), size)
        return Slates(rows, ids, one, one / 10, one / 100, one, one * 8, bid), self.degraded


@pytest.fixture
def maker() -> Planted:
    return Planted()


@pytest.fixture
def app(maker: Planted, tmp_path: Path) -> SlateApp:
    log = EventLog(tmp_path / "served", Opened("v7", 0.0, 1.0, 0.0))
    app = SlateApp(maker, log, Version("v7", "digest", "2026-W04", 2), now=lambda: NOW)
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
    post(app, BODY | {"request_id": "r2", "event_time": 5_000})
    clicks = [{"impression_id": "r1:2", "event": "click"}]
    assert post(app, {"events": clicks}, "/v1/events").json() == {"accepted": 1}
    app.close()
    rows = read(tmp_path / "served", 0, NOW + 1)["impressions"].to_pylist()
    assert [row["impression_id"] for row in rows] == ["r2:1", "r2:2", "r1:1", "r1:2"]
    assert [row["arm"] for row in rows] == ["stable", "stable", "canary", "canary"]
    assert [row["propensity"] for row in rows] == [0.5, 0.25, 0.5, 0.25]
    assert [row["cost_micros"] for row in rows] == [0, 0, 0, 20]


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


def test_an_event_of_an_unknown_kind_is_named(app: SlateApp) -> None:
    events = [{"impression_id": "r1:1", "event": "click"}, {"impression_id": "r1:1", "event": "x"}]
    answer = post(app, {"events": events}, "/v1/events")
    assert answer.status_code == 400
    assert "`$.events[1].event`" in answer.json()["error"] or "'x'" in answer.json()["error"]


def test_negative_revenue_is_named(app: SlateApp) -> None:
    events = [{"impression_id": "r1:1", "event": "conversion", "revenue_micros": -5}]
    answer = post(app, {"events": events}, "/v1/events")
    assert answer.status_code == 400
    assert "-5" in answer.json()["error"]


def test_unknown_paths_and_methods(app: SlateApp) -> None:
    assert call(app, "GET", "/v2/slate").status_code == 404
    assert call(app, "GET", "/v1/slate").status_code == 405
    assert call(app, "POST", "/healthz").status_code == 405


def test_ready_only_between_start_and_close(maker: Planted, tmp_path: Path) -> None:
    log = EventLog(tmp_path, Opened("v7", 0.0, 1.0, 0.0))
    app = SlateApp(maker, log, Version("v7", "digest", "2026-W04", 2))
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").status_code == 503
    app.start()
    assert call(app, "GET", "/readyz").status_code == 200
    app.close()
    assert call(app, "GET", "/readyz").status_code == 503


def test_degraded_slates_say_so_and_are_counted(app: SlateApp, maker: Planted) -> None:
    maker.degraded = True
    assert post(app, BODY).json()["degraded"] is True
    metrics = call(app, "GET", "/metrics").text
    assert "roiflow_slates_total 1.0" in metrics
    assert "roiflow_degraded_slates_total 1.0" in metrics
    assert 'roiflow_serving{policy_version="v7",week="2026-W04"} 1.0' in metrics


def test_version(app: SlateApp) -> None:
    assert call(app, "GET", "/v1/version").json() == {
        "policy_version": "v7", "digest": "digest", "week": "2026-W04", "ads": 2,
    }  # fmt: skip
