"""Which Bentos are deployed, for which share of the users: <home>/deployment.json.

What the door takes is the deployment's, not the model's: <home>/limits/<name>.json, which an
instance reads once, when it starts. Other limits are therefore another instance, which is started
and switched to as another Bento is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roiflow.artefacts.record import Artefact
from roiflow.artefacts.run import Placed
from roiflow.errors import ArtefactError, ServiceError
from roiflow.files import write_file
from roiflow.stream.checks import Limits

STATE = "deployment.json"
LIMITS = "limits"


@dataclass(frozen=True)
class Placements(Artefact):
    """The arms of the last deployment."""

    arms: tuple[Placed, ...]


def current(home: Path) -> tuple[Placed, ...]:
    """The arms of the last deployment; none before the first."""
    try:
        found = Placements.find(home / STATE)
    except ArtefactError as error:
        raise ServiceError(f"{error}: or remove it, then deploy again") from None
    return found.arms if found else ()


def remember(home: Path, arms: Sequence[Placed]) -> None:
    """Write the arms for the next `current`."""
    Placements(tuple(arms)).write(home / STATE)


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
