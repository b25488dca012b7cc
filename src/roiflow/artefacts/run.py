"""What the effects of a run leave: what was made from what, registered, promoted and served."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from roiflow.artefacts.decision import Rule
from roiflow.artefacts.record import Artefact, Record


@dataclass(frozen=True)
class Lineage(Artefact):
    """What a model was made from."""

    place: ClassVar[Path] = Path("data/lineage.json")

    source: str
    week: str
    commit: str
    """Of params.yaml and dvc.lock, and through them of code and data."""
    recipe: str
    """Digest of the training's code and parameters (weekly.recipe): what a refresh shares with the
    week before."""


@dataclass(frozen=True)
class Registered(Artefact):
    """One version of a registered model."""

    place: ClassVar[Path] = Path("data/registered.json")

    name: str
    version: int
    digest: str
    tags: dict[str, str]
    """source, week, commit, recipe, digest, what the screen said and what each trial said."""


@dataclass(frozen=True)
class Promoted(Artefact):
    """What became of a run's decisions: who serves from then on, and who is tried beside."""

    place: ClassVar[Path] = Path("data/promoted.json")

    version: int
    """The one that was decided on: what was on trial, else what the run registered."""
    promoted: bool
    champion: str | None
    """Digest of the package that serves from then on; None where there is none yet."""
    challenger: str | None
    """Digest of the package that is on trial next, beside the champion or, without one, beside
    whatever serves; None where nothing is."""
    rule: Rule
    reason: str


@dataclass(frozen=True)
class Built(Record):
    """The Bento of a registered version."""

    tag: str
    digest: str
    """Of the package in it."""
    version: int


@dataclass(frozen=True)
class Bentos(Artefact):
    """What is to be deployed."""

    place: ClassVar[Path] = Path("data/bento.json")

    model: str
    stable: Built
    """The champion; the challenger alone where there is no champion yet."""
    canary: Built | None
    """The challenger, beside a champion."""


@dataclass(frozen=True)
class Placed(Record):
    """A Bento that answers a share of the users."""

    arm: str
    # As it was given: a whole number is written without its ".0".
    percent: int | float
    tag: str
    limits: str
    """Name of the limits of its door."""

    @property
    def server(self) -> str:
        """Name of its process."""
        # With the limits: the same Bento with another door is another process, which starts beside
        # the first one and takes over.
        return f"ranker-{self.tag.partition(':')[2]}-{self.limits}"


@dataclass(frozen=True)
class Deployed(Artefact):
    """Where the slate service is, and who answers whom."""

    place: ClassVar[Path] = Path("data/deployed.json")

    address: str
    arms: tuple[Placed, ...]
