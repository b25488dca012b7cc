"""The edge's nginx configuration: `split_clients`, the same on one machine and a cluster.

nginx takes MurmurHash2 of salt and user id and cuts it into ranges, which
`experiment.assignment` computes as well. The canary holds the lowest one, so as it grows a user
moves into it once and never back.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roiflow.errors import ServiceError


@dataclass(frozen=True)
class Arm:
    """A share of the users and the server that answers them."""

    name: str
    percent: float
    upstream: str
    """host:port."""


@dataclass(frozen=True)
class Pages:
    """Files that the edge shows itself, of one machine."""

    folder: Path
    """Of the start page, index.html."""
    runs: Path
    """Of the runs' checkouts, for their reports."""
    user: str | None
    """Who reads them: nginx started by root would otherwise read as nobody, who may not."""


TEMPLATE = Path(__file__).with_name("edge.nginx.conf.j2")


def render(
    arms: Sequence[Arm],
    salt: str,
    listen: str,
    folder: str,
    workers: int = 1,
    pages: Pages | None = None,
) -> str:
    """The configuration for `arms`; the last takes what the others leave.

    Every arm but the last falls back on the last, so a dead canary costs no slate. Without any,
    only `pages` are shown, and a slate is refused with 503. Raises ServiceError where the
    percentages do not add to 100 or a name is taken twice.
    """
    if arms:
        _check(arms)
    values = {
        "workers": workers,
        "folder": folder,
        "listen": listen,
        "salt": salt,
        "arms": arms,
        "pages": pages,
    }
    # The text names its own revision, so that a reload can be awaited: a digest of what is in it.
    body = _text(values, "")
    return _text(values, hashlib.sha256(body.encode()).hexdigest()[:12])


def _text(values: dict[str, Any], revision: str) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # autoescape is HTML's
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text()).render(values, revision=revision)


def _check(arms: Sequence[Arm]) -> None:
    total = sum(hundredths(arm.percent) for arm in arms)
    if total != 10_000:
        shares = ", ".join(f"{arm.name} {arm.percent:g}" for arm in arms)
        raise ServiceError(f"arms add to {total / 100:g} percent, not 100: {shares}")
    if len({arm.name for arm in arms}) != len(arms):
        raise ServiceError(f"an arm's name is taken twice: {[arm.name for arm in arms]}")


def revision(configuration: str) -> str:
    """What GET /edge answers beside the arm: which configuration is in force."""
    found = re.search(r'return 200 "\$arm (\w+)', configuration)
    if found is None:
        raise ServiceError("not a configuration of the edge: it has no revision")
    return found[1]


def hundredths(percent: float) -> int:
    """Percent in nginx's resolution. Raises ServiceError outside 0 to 100."""
    if not 0 <= percent <= 100:
        raise ServiceError(f"an arm of {percent:g} percent is outside 0 to 100")
    return round(percent * 100)
