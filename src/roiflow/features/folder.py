"""Features on disk: one .npy file per array, memory-mapped when read, and features.json."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from roiflow.errors import ContractError
from roiflow.features.table import Catalogue, Events, Features, Impressions, Statistics

FORMAT = 1
MANIFEST = "features.json"

Arrays = TypeVar("Arrays")


def write_arrays(folder: Path, values: Any) -> None:
    """Every array of a dataclass, as <folder>/<field>.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(values):
        value = getattr(values, field.name)
        if isinstance(value, np.ndarray):
            np.save(folder / f"{field.name}.npy", value)


def read_array(path: Path) -> Any:
    """One array, memory-mapped and read-only; ContractError, naming the file, where it cannot."""
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise ContractError(f"{path}: cannot read the features: {error}") from None


def read_arrays(folder: Path, kind: type[Arrays], **rest: Any) -> Arrays:
    """What `write_arrays` wrote; `rest` gives the fields that are no arrays."""
    names = [field.name for field in fields(kind) if field.name not in rest]  # type: ignore[arg-type]
    return kind(**{name: read_array(folder / f"{name}.npy") for name in names}, **rest)


def write(folder: Path, features: Features) -> None:
    """Into a folder that exists; wrap in files.write_directory to make it atomic."""
    write_arrays(folder / "events", features.events)
    write_arrays(folder / "impressions", features.impressions)
    write_arrays(folder / "statistics", features.statistics)
    write_arrays(folder, features)
    for catalogue in features.catalogues:
        write_arrays(folder / "catalogues" / catalogue.week, catalogue)
    content = {
        "format": FORMAT,
        "sizes": features.sizes,
        "dense_names": features.dense_names,
        "profile_names": features.profile_names,
        "history_length": features.history_length,
        "weeks": [catalogue.week for catalogue in features.catalogues],
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def read(folder: Path) -> Features:
    """The features that `build_features` wrote; arrays are memory-mapped and read-only.

    Raises ContractError, naming the file, where one is missing, corrupt or of another format.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot read the features: {error}") from None
    if content.get("format") != FORMAT:
        raise ContractError(f"{path}: format {content.get('format')}, this code reads {FORMAT}")
    return Features(
        sizes=content["sizes"],
        dense_names=tuple(content["dense_names"]),
        profile_names=tuple(content["profile_names"]),
        history_length=content["history_length"],
        events=read_arrays(folder / "events", Events),
        impressions=read_arrays(folder / "impressions", Impressions),
        profile=read_array(folder / "profile.npy"),
        attributes=read_array(folder / "attributes.npy"),
        catalogues=tuple(
            read_arrays(folder / "catalogues" / week, Catalogue, week=week)
            for week in content["weeks"]
        ),
        statistics=read_arrays(folder / "statistics", Statistics),
    )
