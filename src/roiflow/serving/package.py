"""A model package: one folder with all that serving needs, and a digest of its content.

    manifest.json       what it is, and the sha256 of every other file
    user_encoder.onnx   a user's last `encode_length` behaviours -> encoded history
    scorer.onnx         encoded history and candidate ads -> calibrated predictions
    policy.json         the slate policy
    candidates/...      the pre-selection
    vocabulary.parquet  ids to dense indices
    plan.parquet        what turns counts into dense features (features.plan)
    statistics.json     normalisation of the dense features

What can be shown is no part of it: ads, bids and budgets change by the hour, a package does not.
The digest covers the files and the manifest's own values, but no time and no path: equal content,
equal digest. Using a package needs neither torch nor pandas.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from roiflow.errors import PackageError
from roiflow.features.table import Statistics
from roiflow.files import write_directory
from roiflow.policy import network
from roiflow.policy import network as policy
from roiflow.ranking.value import CostShares

FORMAT = 4
MANIFEST = "manifest.json"
USER_ENCODER = "user_encoder.onnx"
SCORER = "scorer.onnx"
VOCABULARY = "vocabulary.parquet"
PLAN = "plan.parquet"
POLICY = network.FILE
STATISTICS = "statistics.json"
CANDIDATES = "candidates"
REQUIRED = (USER_ENCODER, SCORER, POLICY, VOCABULARY, PLAN, STATISTICS)


@dataclass(frozen=True)
class Description:
    """The manifest's own values."""

    source: str
    week: str
    """The last week of the window."""
    dense_names: tuple[str, ...]
    profile_names: tuple[str, ...]
    sizes: dict[str, int]
    """Rows of each vocabulary, out-of-vocabulary row included."""
    history_length: int
    encode_length: int
    """Behaviours that `user_encoder.onnx` reads: layers x (history_length - 1) + 1."""
    slate_size: int
    top_k: int
    temperature: float
    cost_weight: float
    cost_shares: CostShares
    feature_sample: float
    """Share of slates whose vectors are logged whole; of all others the hash is."""
    judged: str | None
    """Digest of the package that the test week judged: this one is its recipe on all weeks.

    None in a judged package itself, which saw nothing of its test week and is not shipped.
    """


@dataclass(frozen=True)
class Package:
    """A package whose every file was found as the manifest says."""

    folder: Path
    digest: str
    description: Description

    @classmethod
    def load(cls, folder: Path) -> "Package":
        """Raises PackageError, naming the file, where one is missing, altered or unreadable."""
        path = folder / MANIFEST
        manifest = _read_manifest(path)
        # File by file first: the digest says that something was altered, not what.
        for name, expected in sorted(manifest["files"].items()):
            _check_file(folder, name, expected)
        for name in REQUIRED:
            if name not in manifest["files"]:
                raise PackageError(f"{path}: {name} is not in `files`")
        description = _describe(path, manifest)
        digest = _digest(description, manifest["files"])
        if digest != manifest["digest"]:
            raise PackageError(
                f"{path}: altered: its digest is {digest}, it says {manifest['digest']}"
            )
        return cls(folder, digest, description)

    @classmethod
    def write(cls, folder: Path, description: Description, files: Mapping[str, bytes]) -> "Package":
        """Write atomically; `files` are by relative name, such as `candidates/model.json`.

        Raises PackageError where a name is not below the folder or a required file is missing.
        """
        for name in files:
            _check_name(folder, name)
        missing = [name for name in REQUIRED if name not in files]
        if missing:
            raise PackageError(f"{folder}: cannot write a package without {', '.join(missing)}")
        digests = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
        digest = _digest(description, digests)
        manifest = {"format": FORMAT, "digest": digest, **asdict(description), "files": digests}
        # Aside and renamed as a whole: who loads it meets the old package or the new one.
        with write_directory(folder) as aside:
            for name, content in files.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).write_bytes(content)
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        return cls(folder, digest, description)

    @cached_property
    def user_encoder(self) -> Any:
        """The onnxruntime session of `user_encoder.onnx`, on one thread."""
        return session(self.folder / USER_ENCODER)

    @cached_property
    def scorer(self) -> Any:
        """The onnxruntime session of `scorer.onnx`, on one thread."""
        return session(self.folder / SCORER)

    @cached_property
    def policy(self) -> policy.SlatePolicy:
        """The slate policy."""
        return policy.load(self.folder)

    @cached_property
    def statistics(self) -> Statistics:
        """Normalisation of the dense features."""
        content = json.loads((self.folder / STATISTICS).read_text())
        names = (field.name for field in fields(Statistics))
        return Statistics(**{name: np.array(content[name], np.float32) for name in names})


def session(model: Path | bytes) -> Any:
    """An onnxruntime session on one thread: a second one doubles CPU time for no latency."""
    # Here and not above: to write or check a package takes no runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def statistics_json(statistics: Statistics) -> bytes:
    """`statistics.json`; the float32 values come back bit-equal."""
    # A float32 is a double, too, and JSON's shortest text of a double reads back as the same.
    return json.dumps({name: values.tolist() for name, values in vars(statistics).items()}).encode()


def _digest(description: Description, files: Mapping[str, str]) -> str:
    content = {"format": FORMAT, "files": dict(files), **asdict(description)}
    # Sorted and without spaces: equal values are one text.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PackageError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise PackageError(f"{path}: not the manifest of a model package: it has no `format`")
    if manifest["format"] != FORMAT:
        raise PackageError(
            f"{path}: format {manifest['format']!r}, this version of roiflow reads format {FORMAT}"
        )
    if not isinstance(manifest.get("files"), dict) or "digest" not in manifest:
        raise PackageError(f"{path}: `files` or `digest` is missing")
    return manifest


def _check_name(folder: Path, name: str) -> None:
    # A manifest may be anybody's: no name in it may lead out of the folder.
    parts = PurePosixPath(name).parts
    if not parts or name == MANIFEST or name.startswith("/") or ".." in parts or "\\" in name:
        raise PackageError(f"{folder}: {name!r} is not the name of a file of a package")


def _check_file(folder: Path, name: str, expected: str) -> None:
    _check_name(folder, name)
    path = folder / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    if found != expected:
        raise PackageError(f"{path}: altered: its sha256 is {found}, the manifest says {expected}")


def _describe(path: Path, manifest: Mapping[str, Any]) -> Description:
    values = {key: manifest[key] for key in manifest if key not in {"format", "digest", "files"}}
    names = {field.name for field in fields(Description)}
    if values.keys() != names:
        wrong = ", ".join(sorted(values.keys() ^ names))
        raise PackageError(f"{path}: keys missing or unknown: {wrong}")
    try:
        return Description(
            **{
                **values,
                "dense_names": tuple(values["dense_names"]),
                "profile_names": tuple(values["profile_names"]),
                "cost_shares": CostShares(**values["cost_shares"]),
            }
        )
    except TypeError as error:
        raise PackageError(f"{path}: {error}") from None
