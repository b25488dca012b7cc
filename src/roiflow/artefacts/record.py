"""A file that one stage or job writes for another, as a type that both sides share.

A dictionary that is read back by its path is a contract that nobody checks: a key that one side
renames is a KeyError on the other, a week later. So a file is a frozen dataclass, which mypy holds
the writer to, and which the reader's file is held to here. Plain dataclasses, and not pydantic's
own: what the program makes itself is not checked a second time, and a number stays as it was made,
which matters where a digest is taken of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from roiflow.errors import ArtefactError
from roiflow.files import write_file


@dataclass(frozen=True)
class Record:
    """A JSON object with the keys of a dataclass's fields, no more and no fewer."""

    # pydantic looks for this name. Strict: "3" is no 3, and a key that nobody declared is a fault,
    # since dropping it would take it out of every digest in silence.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Artefact(Record):
    """A record that is a file of its own."""

    place: ClassVar[Path]
    """Where a run's checkout has it: what the pipeline and the chain of effects name."""
    indent: ClassVar[int] = 1
    nan: ClassVar[bool] = False
    """Whether a number may be NaN: Python reads and writes the word, though JSON has it not."""

    @classmethod
    def of(cls, checkout: Path) -> Self:
        """The one of a run. Raises ArtefactError as `read` does."""
        return cls.read(checkout / cls.place)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtefactError, naming the file and each key that is wrong, or that it is away."""
        try:
            return parse(cls, path.read_bytes(), str(path))
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror}: run the step that writes it") from None

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """None where the file is not there; raises ArtefactError where it is another thing."""
        return cls.read(path) if path.exists() else None

    def write(self, path: Path) -> None:
        """As JSON with the keys in the order of the fields; whole or not at all."""
        with write_file(path) as aside:
            aside.write_text(
                # The file ends with a line feed, as every other that git or DVC compares.
                json.dumps(asdict(self), indent=self.indent, allow_nan=self.nan) + "\n"
            )


def parse(kind: type[R], text: str | bytes, named: str) -> R:
    """A record from its JSON. Raises ArtefactError, naming `named` and each key that is wrong."""
    try:
        # mypy takes no class with a bound for hashable.
        found: R = _adapter(kind).validate_json(text)  # type: ignore[arg-type]
        return found
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ")
            # Every fault at once, and none of pydantic's links, which explain its types and not
            # this file.
            for fault in error.errors(include_url=False)
        )
        raise ArtefactError(f"{named}: {faults}: run the step that writes it again") from None


def canonical_digest(content: Mapping[str, Any]) -> str:
    """sha256 of the JSON with sorted keys and no spaces; NaN is refused."""
    # Sorted and without spaces, so that the digest is of the values and not of how a writer set
    # them out. NaN has no one text in JSON, and is unequal to itself.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The checks of a kind, which take longer to make than to use."""
    return TypeAdapter(kind)
