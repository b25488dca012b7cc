"""The slate route on its stacks, each answering the same slate; run by test_serving.py.

Only those of roiflow also log every slate; `buffered` does so for 64 of them in one write, after
they were answered.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import bentoml
from fastapi import FastAPI
from pydantic import BaseModel, Field

from roiflow.serving.app import Message, Receive, Send
from roiflow.stream.events import Event
from roiflow.stream.served_log import EventLog
from tests.planted_app import SLATES, planted

Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


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


class Buffered(EventLog):
    held: tuple[Event, ...] = ()

    def write(self, events: Sequence[Event], longest: int | None = None) -> None:
        self.held += (*events,)
        if len(self.held) >= 64:
            super().write(self.held, longest)
            self.held = ()


def lean() -> Asgi:
    return planted()


def buffered() -> Asgi:
    return planted(Buffered)


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
    ours = planted()
    ours.start()
    Bare.mount_asgi_app(ours, path="/v1")  # type: ignore[attr-defined]
    return Bare.to_asgi()  # type: ignore[attr-defined]


def dispatched() -> Asgi:
    ours, stack = planted(), Bare.to_asgi()  # type: ignore[attr-defined]
    ours.start()

    async def dispatch(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await ours(scope, receive, send)
        else:
            await stack(scope, receive, send)

    return dispatch
