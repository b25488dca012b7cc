"""What a pulled window is: data/raw/pulled.json, beside the tables."""

import json
from dataclasses import dataclass
from pathlib import Path

from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.files import write_file

PULLED = "pulled.json"


@dataclass(frozen=True)
class Pulled:
    """A window of a source; its last week is the test week."""

    source: str
    weeks: list[Week]
    as_of: int
    """Nothing known at or after this time was pulled (microseconds, UTC)."""

    @property
    def week(self) -> Week:
        """The test week."""
        return self.weeks[-1]


def write_pulled(raw: Path, pulled: Pulled) -> None:
    """Write `raw`/pulled.json atomically."""
    content = {
        "source": pulled.source,
        "week": str(pulled.week),
        "weeks": [str(week) for week in pulled.weeks],
        "as_of": pulled.as_of,
    }
    with write_file(raw / PULLED) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n")


def read_pulled(raw: Path) -> Pulled:
    """Raises SourceError, naming the file, where it is missing or not what was written."""
    path = raw / PULLED
    try:
        content = json.loads(path.read_text())
        weeks = [Week.parse(week) for week in content["weeks"]]
        return Pulled(str(content["source"]), weeks, int(content["as_of"]))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not a description of a pulled window: {error!r}") from None
