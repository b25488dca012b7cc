"""Features on disk: one .npy file per array, memory-mapped when read, and features.json."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from roiflow.artefacts.record import Artefact
from roiflow.data.split import Boundaries
from roiflow.errors import ArtefactError, ContractError
from roiflow.features.plan import Plan
from roiflow.features.table import (
    Catalogue,
    Events,
    Features,
    Impressions,
    Ints,
    LaterLabels,
    Outcomes,
    Statistics,
    dtype_of,
)

FORMAT = 5
MANIFEST = "features.json"
CATALOGUES = "catalogues"

Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Manifest(Artefact):
    """features.json: what the arrays beside it do not say of themselves."""

    indent: ClassVar[int] = 2

    format: int
    sizes: dict[str, int]
    """Rows of each vocabulary."""
    dense_names: tuple[str, ...]
    profile_names: tuple[str, ...]
    history_length: int
    weeks: tuple[str, ...]
    """Of the catalogues, oldest first."""
    validation_start: int
    known_until: tuple[int, int, int, int]
    """By split, microseconds."""


def write_arrays(folder: Path, values: Any) -> None:
    """Every array of a dataclass, as <folder>/<field>.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(values):
        value = getattr(values, field.name)
        if isinstance(value, np.ndarray):
            np.save(folder / f"{field.name}.npy", value)


class ArrayFile:
    """A .npy file of known length that is written in pieces, by several threads."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The header is numpy's own and the length is set at once, so that what is written in pieces
        # is read like any other array.
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            self._start = file.tell()
            file.truncate(self._start + dtype.itemsize * math.prod(shape))
        self._path = path
        self._row_bytes = dtype.itemsize * math.prod(shape[1:])

    def put(self, row: int, values: NDArray[Any]) -> None:
        """Rows from `row` on."""
        # Opened anew for each piece: threads would share the place in one open file.
        with self._path.open("r+b") as file:
            file.seek(self._start + self._row_bytes * row)
            np.ascontiguousarray(values).tofile(file)


class ArraysFile:
    """Dataclasses of arrays of equal length, written in pieces: a file per field."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._files: dict[str, ArrayFile] = {}

    def create(
        self, kind: type[Any], widths: Mapping[str, int], leave: Collection[str] = ()
    ) -> None:
        """Every field of `kind`; a field in `widths` has so many columns."""
        for field in fields(kind):
            if field.name not in leave:
                shape = (self._rows, *([widths[field.name]] if field.name in widths else []))
                path = self._folder / f"{field.name}.npy"
                self._files[field.name] = ArrayFile(path, dtype_of(field.type), shape)

    def put(self, row: int, values: Any, leave: Collection[str] = ()) -> None:
        """Rows from `row` on of every field but those to leave."""
        for field in fields(values):
            if field.name not in leave:
                self._files[field.name].put(row, getattr(values, field.name))


def read_array(path: Path) -> Any:
    """One array, memory-mapped and read-only; ContractError, naming the file, where it cannot."""
    try:
        # As a plain array: each slice of numpy's own class of mapped ones costs more.
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise ContractError(f"{path}: cannot read the features: {error}") from None


def read_arrays(folder: Path, kind: type[Arrays], **rest: Any) -> Arrays:
    """What `write_arrays` wrote; `rest` gives the fields that are no arrays."""
    names = [field.name for field in fields(kind) if field.name not in rest]  # type: ignore[arg-type]
    return kind(**{name: read_array(folder / f"{name}.npy") for name in names}, **rest)


def write_settled(
    folder: Path,
    plan: Plan,
    profile: Ints,
    catalogues: Sequence[Catalogue],
    starts: Boundaries,
    end: int,
) -> None:
    """What does not depend on the impressions, and the manifest.

    `end` is the first microsecond after the window.
    """
    np.save(folder / "profile.npy", profile)
    np.save(folder / "attributes.npy", plan.attributes)
    for catalogue in catalogues:
        write_arrays(folder / CATALOGUES / catalogue.week, catalogue)
    Manifest(
        format=FORMAT,
        sizes=dict(plan.sizes),
        dense_names=tuple(plan.dense_names),
        profile_names=tuple(plan.profile_names),
        history_length=plan.history_length,
        weeks=tuple(catalogue.week for catalogue in catalogues),
        validation_start=starts.validation,
        known_until=(starts.test, starts.test, end, starts.test),
    ).write(folder / MANIFEST)


def read_catalogues(folder: Path) -> tuple[Catalogue, ...]:
    """The weeks' catalogues, oldest first."""
    weeks = _manifest(folder).weeks
    return tuple(read_arrays(folder / CATALOGUES / week, Catalogue, week=week) for week in weeks)


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        found = Manifest.read(path)
    except ArtefactError as error:
        raise ContractError(f"cannot read the features: {error}") from None
    if found.format != FORMAT:
        raise ContractError(f"{path}: format {found.format}, this code reads {FORMAT}")
    return found


def read(folder: Path) -> Features:
    """The features that `build_features` wrote; arrays are memory-mapped and read-only.

    Raises ContractError, naming the file, where one is missing, corrupt or of another format.
    """
    about = _manifest(folder)
    return Features(
        sizes=about.sizes,
        dense_names=about.dense_names,
        profile_names=about.profile_names,
        history_length=about.history_length,
        events=read_arrays(folder / "events", Events),
        impressions=read_arrays(folder / "impressions", Impressions),
        outcomes=read_arrays(folder / "outcomes", Outcomes),
        later_labels=read_arrays(folder / "later_labels", LaterLabels),
        validation_start=about.validation_start,
        known_until=about.known_until,
        profile=read_array(folder / "profile.npy"),
        attributes=read_array(folder / "attributes.npy"),
        catalogues=read_catalogues(folder),
        statistics=read_arrays(folder / "statistics", Statistics),
    )
