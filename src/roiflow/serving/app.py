"""The slate route: a raw ASGI app.

Without a framework, because a framework's share of a request was measured to be larger than the
model's.

    POST /v1/slate     one request -> one slate; in the log with its propensities before the answer
    POST /v1/events    clicks, conversions and behaviours: each is taken or comes back with a reason
    GET  /v1/version   what serves
    GET  /healthz      the process lives
    GET  /readyz       it is warm, its log can be written, and there is an ad to show
    GET  /metrics      Prometheus text

One process, one thread: a request is a millisecond of computing, so threads would only queue.
A slate is handed to the system in a write of its own before it is answered, so that the end of this
process loses none. The write takes 2 microseconds; gathering those of several requests into one
would save less and let the first of them wait for the last.
"""

import gc
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from roiflow.data.ids import has_control, is_name
from roiflow.errors import RoiflowError, ServiceError
from roiflow.online import given as parity
from roiflow.ranking.value import CostShares
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.stream import checks
from roiflow.stream.checks import Limits, shorten, value_at
from roiflow.stream.events import Event, Name, Shown, Slate, Time, impression_id
from roiflow.stream.served_log import EventLog

MAX_SLATE_BYTES = 16 * 1024
MAX_EVENTS_BYTES = 1024 * 1024
WARM_UP_SLATES = 20

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SlateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/slate; times are microseconds, UTC.

    Without `event_time` it happens now, without `known_time` it is known now, as events are: only
    who replays dated requests dates both.
    """

    request_id: Name
    user_id: Name
    placement: Name
    device: Name
    event_time: Time | None = None
    known_time: Time | None = None


class SlateAd(msgspec.Struct):
    """An ad of the answer, in slate order."""

    ad_id: str
    impression_id: str
    position: int
    propensity: float
    bid_micros: int
    p_click: float
    expected_value_micros: float


class SlateAnswer(msgspec.Struct):
    """Body of the answer. `degraded`: made without the user's online features."""

    request_id: str
    policy_version: str
    degraded: bool
    ads: list[SlateAd]


class ReportedEvents(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/events: messages of stream/events.py.

    Without `event_time` an event happens now, without `known_time` it is known now.
    """

    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=1000)]


class RefusedEvent(msgspec.Struct):
    """An event that was not taken: its place in the body, a code of checks.py and the value."""

    index: int
    reason: str
    fault: str
    value: str


class EventsAnswer(msgspec.Struct):
    """Body of the answer: how many were taken, and which were not."""

    accepted: int
    refused: list[RefusedEvent]


class SlateMaker(Protocol):
    """Makes slates and says whether online features were there."""

    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        """Slates of B requests, and whether they are degraded."""
        ...

    def check(self, at: int) -> None:
        """Raises ServiceError, with the reason, where no ad may be shown at a time."""
        ...


@dataclass(frozen=True)
class Version:
    """What serves."""

    policy_version: str
    digest: str
    week: str


class Refused(Exception):
    """A request that is not answered with a slate: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Metrics:
    """Counters and the latency histogram, in a registry of their own."""

    def __init__(self, version: Version) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        of = self.registry
        self.slates = Counter("roiflow_slates", "Slates served", registry=of)
        self.degraded = Counter("roiflow_degraded_slates", "Without online features", registry=of)
        self.refused = Counter("roiflow_refused", "Requests refused", ["status"], registry=of)
        self.events = Counter("roiflow_events", "Reported events taken", registry=of)
        self.refused_events = Counter(
            "roiflow_refused_events", "Reported events refused", ["reason"], registry=of
        )
        # Every reason from the start, at 0: a rate wants a first value to rise from.
        for reason in checks.REFUSALS:
            self.refused_events.labels(reason)
        buckets = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
        self.seconds = Histogram(
            "roiflow_slate_seconds", "Body read to answer ready", buckets=buckets, registry=of
        )
        gauge = Gauge("roiflow_serving", "What serves", ["policy_version", "week"], registry=of)
        gauge.labels(version.policy_version, version.week).set(1)

    def text(self) -> bytes:
        """Prometheus exposition format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class SlateApp:
    """The ASGI app; its lifespan warms up and, at the end, seals the event log."""

    def __init__(
        self,
        maker: SlateMaker,
        log: EventLog,
        version: Version,
        shares: CostShares,
        limits: Limits,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        feature_sample: float = 0.0,
    ) -> None:
        """`now` gives microseconds since the epoch, UTC; `feature_sample` of all slates are logged
        with what the models were given.
        """
        self._maker, self._log, self._version, self._now = maker, log, version, now
        self._shares, self._limits = shares, limits
        self._feature_sample = feature_sample
        self._metrics = Metrics(version)
        self._encode = msgspec.json.Encoder().encode
        self._slate_decoder = msgspec.json.Decoder(SlateRequest)
        self._events_decoder = msgspec.json.Decoder(ReportedEvents)
        self._ready, self._cold = False, True
        self._version_body = msgspec.json.encode(version)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path, method = scope["path"], scope["method"]
        try:
            if path == "/v1/slate":
                _only(method, "POST")
                body = self.answer(await _body(scope, receive, MAX_SLATE_BYTES), _arm(scope))
                kind = JSON
            elif path == "/v1/events":
                _only(method, "POST")
                body = self._events(await _body(scope, receive, MAX_EVENTS_BYTES))
                kind = JSON
            else:
                _only(method, "GET")
                body, kind = self._look(path)
            status = 200
        except Refused as refusal:
            status, kind, reason = refusal.status, JSON, str(refusal)
        except ServiceError as error:  # a slate that cannot be logged is not served
            status, kind, reason = 503, JSON, str(error)
        if status != 200:
            body = self._encode({"error": reason})
            self._metrics.refused.labels(status).inc()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [kind, length]})
        await send({"type": "http.response.body", "body": body})

    def _look(self, path: str) -> tuple[bytes, tuple[bytes, bytes]]:
        if path == "/healthz":
            return b'{"status":"alive"}', JSON
        if path == "/readyz":
            if not self._ready:
                raise Refused(503, "not warm yet")
            self._log.check()
            self._maker.check(self._now())
            if self._cold:
                self._warm_up()
            return b'{"status":"ready"}', JSON
        if path == "/v1/version":
            return self._version_body, JSON
        if path == "/metrics":
            return self._metrics.text(), TEXT
        raise Refused(404, f"no such path: {path}")

    def answer(self, body: bytes, arm: str = "stable") -> bytes:
        """Body of POST /v1/slate -> body of the answer; logged. Raises Refused, ServiceError."""
        started = time.perf_counter()
        request = _decode(self._slate_decoder, body)
        _refuse_control(request, body)
        now = self._now()
        at, known = request.event_time or now, request.known_time or now
        self._refuse_untimely(at, known, now)
        slates, degraded = self._maker(
            RequestContexts(
                (request.request_id,),
                (request.user_id,),
                np.array([at]),
                (request.placement,),
                (request.device,),
            )
        )
        ads = _ads(request.request_id, slates)
        if not ads:
            # Nothing to show is no slate: whoever asked has something else for the place.
            self._maker.check(at)
            raise Refused(503, "no ad may be shown: those that are there have spent their budgets")
        shown = [
            Shown(
                ad.ad_id,
                ad.bid_micros,
                ad.propensity,
                ad.p_click,
                ad.expected_value_micros,
                p_conversion,
            )
            for ad, p_conversion in zip(ads, slates.conversion[0].tolist(), strict=False)
        ]
        logged = Slate(
            request_id=request.request_id,
            user_id=request.user_id,
            event_time=at,
            known_time=known,
            placement=request.placement,
            device=request.device,
            arm=arm,
            degraded=degraded,
            policy_version=self._version.policy_version,
            impression_share=self._shares.impression,
            click_share=self._shares.click,
            conversion_share=self._shares.conversion,
            ads=shown,
            recalibration=slates.recalibration[0],
            **({} if degraded else self._evidence(request.request_id, slates)),
        )
        # In the log before anybody can see it: what is shown and not logged can never be evaluated.
        self._log.write([logged], self._limits.message_bytes)
        answer = SlateAnswer(request.request_id, self._version.policy_version, degraded, ads)
        encoded = self._encode(answer)
        self._metrics.slates.inc()
        if degraded:
            self._metrics.degraded.inc()
        self._metrics.seconds.observe(time.perf_counter() - started)
        return encoded

    def _refuse_untimely(self, at: int, known: int, now: int) -> None:
        """What the consumer would not take is not served."""
        try:
            checks.check_times(at, known, now, self._limits)
        except checks.Refused as refusal:
            raise Refused(400, str(refusal)) from None

    def _evidence(self, request_id: str, slates: Slates) -> dict[str, Any]:
        """What the slate was made from, so that it can be computed again."""
        whole = parity.sampled(request_id, self._feature_sample)
        return {
            "as_of": int(slates.as_of[0]),
            "features": parity.hashes(slates.vectors)[0],
            "vector": slates.vectors[0].tobytes() if whole else None,
        }

    def _events(self, body: bytes) -> bytes:
        messages = _decode(self._events_decoder, body).events
        now, taken, refused = self._now(), list[Event](), list[RefusedEvent]()
        # Each by itself, out of raw JSON: one that is wrong does not cost the others.
        for index, message in enumerate(messages):
            try:
                taken.append(checks.reported(message, now, self._limits))
            except checks.Refused as refusal:
                refused.append(RefusedEvent(index, refusal.reason, refusal.fault, refusal.value))
                self._metrics.refused_events.labels(refusal.reason).inc()
        if taken:
            self._log.write(taken, self._limits.message_bytes)
        self._metrics.events.inc(len(taken))
        return self._encode(EventsAnswer(len(taken), refused))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self.start()
        except RoiflowError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def start(self) -> None:
        """Warm up, then keep what lives on out of the garbage collector's sight.

        A collection over everything that was loaded would stall one request in a thousand.
        """
        self._warm_up()
        self._ready = True

    def _warm_up(self) -> None:
        for number in range(WARM_UP_SLATES):
            slates, _ = self._maker(
                RequestContexts(
                    (f"warm-up-{number}",),
                    (f"warm-up-{number}",),
                    np.array([self._now()]),
                    ("",),
                    ("",),
                )
            )
            # With nothing to show no model was asked: again, once there is an ad.
            self._cold = not (slates.row >= 0).any()
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Seal the event log."""
        self._ready = False
        self._log.close()


def _ads(request: str, slates: Slates) -> list[SlateAd]:
    # Empty slots come last. The ids, cut at the first of them, end the zip.
    shown = int((slates.row[0] >= 0).sum())
    columns = zip(
        slates.ad_ids[0].tolist()[:shown],
        slates.propensity[0].tolist(),
        slates.bid[0].tolist(),
        slates.click[0].tolist(),
        slates.value[0].tolist(),
        strict=False,
    )
    return [
        SlateAd(ad, impression_id(request, position), position, propensity, bid, click, value)
        for position, (ad, propensity, bid, click, value) in enumerate(columns, 1)
    ]


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise Refused(405, f"method {method} is not allowed here, {allowed} is")


def _arm(scope: Message) -> str:
    for name, value in scope["headers"]:
        if name == b"x-arm":
            arm = str(value.decode("latin-1"))
            if not is_name(arm):
                raise Refused(400, f"header x-arm: {shorten(arm)}")
            return arm
    return "stable"


def _refuse_control(request: SlateRequest, body: bytes) -> None:
    """What would not pass the consumer is not served; without escapes there is none."""
    # JSON has the others of ASCII only as escapes: an ordinary body is done after three searches.
    if b"\\" in body or not body.isascii() or b"\x7f" in body:
        for name in ("request_id", "user_id", "placement", "device"):
            value = getattr(request, name)
            if has_control(value):
                raise Refused(400, f"control character - at `$.{name}`: value {shorten(value)}")


async def _body(scope: Message, receive: Receive, limit: int) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise Refused(413, f"content-length {value.decode('latin-1')} is over {limit} bytes")
    # Counted here as well: a chunked body has no content-length.
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise Refused(413, f"body is over {limit} bytes")
    return body


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    # Before DecodeError, of which it is a kind.
    except msgspec.ValidationError as error:
        fault = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"body is not JSON: {error}") from None
    # Decoded once more, without its type: msgspec names the place, not the value there.
    value = value_at(fault, _content(body))
    raise Refused(400, f"{fault}: value {value}" if value else fault)


def _content(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"body is not JSON: {error}") from None
