"""The Bento: one model package behind the slate route.

`app` is what a deployment runs (`uvicorn --factory service:app`): the slate app answers its own
paths before BentoML's stack is entered, whose share of a request is many times the model's; the
rest (OpenAPI page, BentoML's probes) is BentoML's. `bentoml serve` runs the same routes mounted
inside the stack.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import bentoml
from bentoml.exceptions import InvalidArgument, ServiceUnavailable
from schemas import Slate, SlateRequest

from roiflow.entry import exit_on_expected
from roiflow.errors import ServiceError
from roiflow.serving.app import Message, Receive, Refused, Send, SlateApp
from roiflow.serving.service import build_app
from roiflow.settings import Settings

HERE = Path(__file__).parent
OURS = ("/v1/", "/healthz", "/readyz", "/metrics")

Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


@cache
def slate_app() -> SlateApp:
    """The one slate app of this process."""
    settings = Settings()
    return build_app(HERE / "package", settings.limits, settings.redis_url, settings.served)


async def mounted(scope: Message, receive: Receive, send: Send) -> None:
    """The slate app inside BentoML's stack, which keeps the lifespan to itself."""
    await slate_app()(scope, receive, send)


@bentoml.service(
    name="ad_ranker",
    image=bentoml.images.Image(python_version="3.11", lock_python_packages=False).python_packages(
        *(HERE / "requirements.txt").read_text().split()
    ),
    traffic={"timeout": 10},
    workers=1,
)
@bentoml.asgi_app(mounted, path="/v1")
class AdRanker:
    """Slates of ads for a user, filled by a Plackett-Luce policy over ROSA's predictions."""

    def __init__(self) -> None:
        slate_app().start()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Seal the event log."""
        slate_app().close()

    @bentoml.api(route="/slate")
    async def slate(self, request: SlateRequest) -> Slate:
        """The slate route through BentoML's own validation; use /v1/slate where speed counts.

        A coroutine, so that the one thread of the slate app answers and logs it.
        """
        try:
            answer = slate_app().answer(request.model_dump_json().encode())
        except Refused as refusal:
            raise InvalidArgument(str(refusal)) from None
        except ServiceError as error:
            raise ServiceUnavailable(str(error)) from None
        return Slate.model_validate_json(answer)


def app() -> Asgi:
    """The slate app before BentoML's stack; one line and exit 1 where its package is not whole."""
    with exit_on_expected():
        ours = slate_app()
    stack = AdRanker.to_asgi()

    async def dispatch(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(OURS):
            await ours(scope, receive, send)
        else:  # the lifespan too: it makes the AdRanker, which starts the slate app
            await stack(scope, receive, send)

    return dispatch
