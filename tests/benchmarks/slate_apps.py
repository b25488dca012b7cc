"""The slate route on its stacks, each answering the same slate; run by test_serving.py.

Only those of roiflow also log every slate; `buffered` does so for 64 of them in one write, after
they were answered.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, Field

from roiflow.ranking.value import CostShares
from roiflow.serving.app import Message, Receive, Send, SlateApp, Version
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.stream.checks import Limits
from roiflow.stream.events import Event
from roiflow.stream.served_log import EventLog

Asgi = Callable[[Message, Receive, Send], Awaitable[None]]
LIMITS = Limits(
    lateness=3_600_000_000, tolerance=1_000_000, message_bytes=65_536, amount=10**15, slate=1_000
)
ROW = np.array([[0, 1, 2]])
HALF = np.full((1, 3), 0.5)
IDS = np.array([["a", "b", "c"]], object)
SLATES = Slates(
    ROW, IDS, HALF, HALF, HALF, HALF, HALF, ROW * 100, ROW[0, :1], np.zeros((1, 1000), np.uint8)
)


class Request(BaseModel):
    request_id: str = Field(min_length=1, max_length=128)
    user_id: str = Field(min_length=1, max_length=128)
    placement: str = Field(min_length=1, max_length=128)
    device: str = Field(min_length=1, max_length=128)
    event_time: int | None = Field(None, gt=0)


class Ad(BaseModel):
    ad_id: str
    impression_id: str
    position: int
    propensity: float
    bid_micros: int
    p_click: float
    expected_value_micros: float


class Answer(BaseModel):
    request_id: str
    policy_version: str
    degraded: bool
    ads: list[Ad]


def answer(request_id: str) -> Answer:
    return Answer(
        request_id=request_id,
        policy_version="v",
        degraded=False,
        ads=[
            Ad(
                ad_id=str(SLATES.ad_ids[0, at]),
                impression_id=f"{request_id}:{at + 1}",
                position=at + 1,
                propensity=float(SLATES.propensity[0, at]),
                bid_micros=int(SLATES.bid[0, at]),
                p_click=float(SLATES.click[0, at]),
                expected_value_micros=float(SLATES.value[0, at]),
            )
            for at in range(3)
        ],
    )


def always(contexts: RequestContexts) -> tuple[Slates, bool]:
    return SLATES, False


class Buffered(EventLog):
    held: tuple[Event, ...] = ()

    def write(self, events: Sequence[Event]) -> None:
        self.held += (*events,)
        if len(self.held) >= 64:
            super().write(self.held)
            self.held = ()


def _lean(kind: type[EventLog] = EventLog) -> SlateApp:
    log, shares = kind(Path(os.environ["SERVED"])), CostShares(0.0, 1.0, 0.0)
    return SlateApp(always, log, Version("v", "v", "2026-W01", 3), shares, LIMITS)


def lean() -> Asgi:
    return _lean()


def buffered() -> Asgi:
    return _lean(Buffered)


def fastapi() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/slate")
    async def slate(request: Request) -> Answer:
        return answer(request.request_id)

    return app


@bentoml.service(name="peer")
class Peer:
    @bentoml.api(route="/v1/slate")
    async def slate(
        self,
        request_id: str,
        user_id: str,
        placement: str,
        device: str,
        event_time: int | None = None,
    ) -> Answer:
        return answer(request_id)


@bentoml.service(name="bare")
class Bare:
    pass


def bento() -> Any:
    return Peer.to_asgi()  # type: ignore[attr-defined]


def mounted() -> Any:
    ours = _lean()
    ours.start()
    Bare.mount_asgi_app(ours, path="/v1")  # type: ignore[attr-defined]
    return Bare.to_asgi()  # type: ignore[attr-defined]


def dispatched() -> Asgi:
    ours, stack = _lean(), Bare.to_asgi()  # type: ignore[attr-defined]
    ours.start()

    async def dispatch(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await ours(scope, receive, send)
        else:
            await stack(scope, receive, send)

    return dispatch
