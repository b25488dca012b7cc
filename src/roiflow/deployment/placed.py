"""Which Bentos are deployed, for which share of the users: <home>/deployment.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from roiflow.files import write_file

STATE = "deployment.json"


@dataclass(frozen=True)
class Placed:
    """A Bento that answers a share of the users."""

    arm: str
    percent: float
    tag: str

    @property
    def server(self) -> str:
        """Name of its process."""
        return f"ranker-{self.tag.partition(':')[2]}"


def current(home: Path) -> tuple[Placed, ...]:
    """The arms of the last deployment; none before the first."""
    path = home / STATE
    if not path.exists():
        return ()
    return tuple(Placed(**arm) for arm in json.loads(path.read_text())["arms"])


def remember(home: Path, arms: Sequence[Placed]) -> None:
    """Write the arms for the next `current`."""
    with write_file(home / STATE) as aside:
        aside.write_text(json.dumps({"arms": [asdict(arm) for arm in arms]}, indent=1) + "\n")
