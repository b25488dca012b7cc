"""What makes an event acceptable; the door and the consumer ask the same.

A refusal has a short code, so that it can be counted, and names the value.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from roiflow import columns as c
from roiflow.catalogue.updates import fault_of
from roiflow.data.ids import has_control
from roiflow.data.weeks import MICROS_PER_HOUR, MICROS_PER_SECOND
from roiflow.errors import ParamsError
from roiflow.params import StreamParams, ValidateParams
from roiflow.stream.events import Behaviour, Change, Click, Conversion, Event, Slate

MALFORMED = "malformed"
SCHEMA = "schema"
OVERSIZED = "oversized"
LATE = "late"
FUTURE = "future"
DUPLICATE = "duplicate"

EMPTIES = "empties"

REFUSALS = (MALFORMED, SCHEMA, OVERSIZED, LATE, FUTURE, EMPTIES)
"""A duplicate is none of these: it is counted, but nobody needs to look at it."""

_SHOWN = 200
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in microseconds. They are the deployment's, and so in no model package."""

    lateness: int
    """An event may become known so long after it happened."""
    tolerance: int
    """Clocks may differ by so much."""
    message_bytes: int
    amount: int
    """The largest bid and revenue, micros."""
    slate: int
    """Ads of the largest slate."""

    @classmethod
    def of(cls, params: StreamParams, contract: ValidateParams) -> "Limits":
        """What params.yaml says: what a lake's rows may be is what the door takes."""
        return cls(
            int(params.allowed_lateness_hours * MICROS_PER_HOUR),
            int(params.future_tolerance_seconds * MICROS_PER_SECOND),
            params.message_kb << 10,
            contract.max_amount_micros,
            contract.max_slate_size,
        )

    @classmethod
    def read(cls, path: Path) -> "Limits":
        """What `content` was written to. Raises ParamsError, naming the file and what is wrong."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ParamsError(f"{path}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise ParamsError(f"{path}: not the limits of the door: {error}") from None

    @property
    def content(self) -> bytes:
        """JSON, one limit a line; equal limits, equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


class Refused(Exception):
    """An event that is not taken."""

    def __init__(self, reason: str, fault: str, value: str = "") -> None:
        super().__init__(reason, fault, value)
        self.reason, self.fault, self.value = reason, fault, value

    def __str__(self) -> str:
        return f"{self.fault}: value {self.value}" if self.value else self.fault


_decode = msgspec.json.Decoder(Event).decode


def parse(payload: bytes, limits: Limits) -> Event:
    """One message -> an event whose fields are what they may be; times are not looked at.

    Raises Refused.
    """
    if len(payload) > limits.message_bytes:
        raise _over(len(payload), limits)
    try:
        event = _decode(payload)
    except msgspec.ValidationError as error:
        # It stops at the first fault; what comes after that may be no JSON at all.
        raise _refusal(str(error), _content(payload)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, payload) from None
    if b"\\" in payload or b"\x7f" in payload or b"\xc2" in payload:
        _refuse_control(event)
    _refuse_beyond(event, limits)
    return event


def check_times(happened: int, known: int, now: int, limits: Limits) -> None:
    """Raises Refused where `event_time` and `known_time` say that an event is late or to come."""
    if known - happened > limits.lateness:
        raise Refused(
            LATE,
            f"event_time is {_hours(known - happened)} late, over {_hours(limits.lateness)}",
            str(happened),
        )
    slack = f"more than {limits.tolerance / MICROS_PER_SECOND:g} s after"
    if happened - known > limits.tolerance:
        raise Refused(FUTURE, f"event_time is {slack} known_time {known}", str(happened))
    if known - now > limits.tolerance:
        raise Refused(FUTURE, f"known_time is {slack} now, {now}", str(known))


_Reported = Click | Conversion | Behaviour | Change


def reported(payload: bytes, now: int, limits: Limits) -> _Reported:
    """An event as the HTTP door takes it: it happened now and is known now where it is not said.

    A replay of dated requests dates what came of them as well. Raises Refused.
    """
    if len(payload) > limits.message_bytes:
        raise _over(len(payload), limits)
    content = _content(payload)
    if not isinstance(content, dict):
        raise Refused(SCHEMA, "Expected `object`", shorten(content))
    try:
        event = msgspec.convert({"event_time": now, "known_time": now, **content}, _Reported)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), content) from None
    _refuse_control(event)
    _refuse_beyond(event, limits)
    check_times(event.event_time, event.known_time or now, now, limits)
    return event


def _refuse_control(struct: Any, path: str = "$") -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, str) and has_control(value):
            raise Refused(SCHEMA, f"control character - at `{path}.{name}`", shorten(value))
        if isinstance(value, list):
            for at, one in enumerate(value):
                _refuse_control(one, f"{path}.{name}[{at}]")


def _refuse_beyond(event: Event, limits: Limits) -> None:
    """Amounts and slates that the data contract would set aside."""
    if isinstance(event, Conversion):
        _refuse_amount(event.revenue_micros, "$.revenue_micros", limits)
    elif isinstance(event, Change):
        _refuse_change(event, limits)
    elif isinstance(event, Slate):
        if len(event.ads) > limits.slate:
            fault = f"slate of over {limits.slate} ads - at `$.ads`"
            raise Refused(SCHEMA, fault, str(len(event.ads)))
        seen = set()
        for at, shown in enumerate(event.ads):
            _refuse_amount(shown.bid_micros, f"$.ads[{at}].bid_micros", limits)
            if shown.ad_id in seen:
                fault = f"ad again in its slate - at `$.ads[{at}].ad_id`"
                raise Refused(SCHEMA, fault, shorten(shown.ad_id))
            seen.add(shown.ad_id)


def _refuse_change(event: Change, limits: Limits) -> None:
    fault = fault_of(msgspec.structs.asdict(event))
    if fault:
        raise Refused(SCHEMA, f"ad {shorten(event.ad_id)}: {fault}")
    for name in (c.PRICE, c.BID, c.DAILY_BUDGET):
        _refuse_amount(getattr(event, name) or 0, f"$.{name}", limits)


def _refuse_amount(micros: int, path: str, limits: Limits) -> None:
    if micros > limits.amount:
        raise Refused(SCHEMA, f"amount over {limits.amount} micros - at `{path}`", str(micros))


def _over(size: int, limits: Limits) -> Refused:
    return Refused(OVERSIZED, f"message over {limits.message_bytes} bytes", f"{size} bytes")


def _malformed(error: Exception, payload: bytes) -> Refused:
    return Refused(MALFORMED, f"not JSON: {error}", shorten(payload))


def _content(payload: bytes) -> Any:
    """Any JSON. Raises Refused."""
    try:
        return msgspec.json.decode(payload)
    except msgspec.ValidationError as error:  # a number that is none here, such as 1e999
        raise Refused(SCHEMA, str(error), shorten(payload)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, payload) from None


def _refusal(fault: str, content: Any) -> Refused:
    reason = OVERSIZED if "of length <=" in fault else SCHEMA
    return Refused(reason, fault, value_at(fault, content))


def value_at(fault: str, content: Any) -> str:
    """The value that 'Expected `str`, got `int` - at `$.user_id`' speaks of; "" for the whole."""
    _, found, path = fault.partition(" - at `$")
    value = content
    steps = _STEP.findall(path.rstrip("`"))
    for key, index in steps:
        value = _step(value, key, index)
    return shorten(value) if found and steps else ""


def _step(value: Any, key: str, index: str) -> Any:
    if index:
        return value[int(index)] if isinstance(value, list) else None
    return value.get(key) if isinstance(value, Mapping) else None


def shorten(value: object) -> str:
    """How a value is shown: its repr, never long."""
    if isinstance(value, str | bytes):
        value = value[:_SHOWN]
    return repr(value)[:_SHOWN]


def _hours(micros: int) -> str:
    return f"{micros / MICROS_PER_HOUR:g} hours"
