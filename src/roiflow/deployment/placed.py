"""Which Bentos are deployed, for which share of the users: <home>/deployment.json.

What the door takes is the deployment's, not the model's: <home>/limits/<name>.json, which an
instance reads once, when it starts. Other limits are therefore another instance, which is started
and switched to as another Bento is.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from roiflow.errors import ServiceError
from roiflow.files import write_file
from roiflow.stream.checks import Limits

STATE = "deployment.json"
LIMITS = "limits"


@dataclass(frozen=True)
class Placed:
    """A Bento that answers a share of the users."""

    arm: str
    percent: float
    tag: str
    limits: str
    """Name of the limits of its door."""

    @property
    def server(self) -> str:
        """Name of its process."""
        return f"ranker-{self.tag.partition(':')[2]}-{self.limits}"


def current(home: Path) -> tuple[Placed, ...]:
    """The arms of the last deployment; none before the first."""
    path = home / STATE
    if not path.exists():
        return ()
    try:
        return tuple(Placed(**arm) for arm in json.loads(path.read_text())["arms"])
    except (TypeError, KeyError) as error:
        raise ServiceError(
            f"{path}: of another version of roiflow ({error}): remove it, then deploy again"
        ) from None


def remember(home: Path, arms: Sequence[Placed]) -> None:
    """Write the arms for the next `current`."""
    with write_file(home / STATE) as aside:
        aside.write_text(json.dumps({"arms": [asdict(arm) for arm in arms]}, indent=1) + "\n")


def keep_limits(home: Path, limits: Limits) -> str:
    """Write what the door takes for instances to read; its name, equal for equal limits."""
    name = hashlib.sha256(limits.content).hexdigest()[:8]
    path = limits_file(home, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path) as aside:
        aside.write_bytes(limits.content)
    return name


def limits_file(home: Path, name: str) -> Path:
    """Where an instance reads what its door takes."""
    return home.absolute() / LIMITS / f"{name}.json"
