"""A saved XGBoost model as compiled code: scoring needs neither xgboost nor what it imports.

Reads the JSON that `Booster.save_model` writes and walks the trees in the order XGBoost does, in
float32, so that the answers are equal up to the last bits of the logistic function.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import PackageError
from roiflow.features.kernels import kernel
from roiflow.features.table import Flags, Ints, Singles

OBJECTIVE = "binary:logistic"


@kernel
def _margins(
    data: Singles,
    starts: Ints,
    left: Ints,
    right: Ints,
    feature: Ints,
    threshold: Singles,
    missing_left: Flags,
    base: np.float32,
    out: Singles,
) -> None:
    for row in range(data.shape[0]):
        total = base
        for tree in range(starts.size):
            first = starts[tree]
            node = first
            while left[node] >= 0:
                value = data[row, feature[node]]
                goes_left = missing_left[node] if np.isnan(value) else value < threshold[node]
                node = first + (left[node] if goes_left else right[node])
            total += threshold[node]
        out[row] = total


@dataclass(frozen=True)
class Forest:
    """Trees end to end; node n of a tree that starts at s is row s + n, children are by n."""

    starts: Ints  # (trees,)
    left: Ints  # (nodes,) -1 at a leaf
    right: Ints  # (nodes,)
    feature: Ints  # (nodes,)
    threshold: Singles  # (nodes,) at a leaf its value
    missing_left: Flags  # (nodes,)
    base: np.float32
    """Margin before the first tree."""
    width: int
    """Columns of the data."""
    content: bytes
    """The file it was read from."""

    def inplace_predict(self, data: Singles) -> Singles:
        """Rows (n, width) -> probabilities (n,); named as the booster's method."""
        margin = np.empty(data.shape[0], np.float32)
        _margins(
            np.ascontiguousarray(data), self.starts, self.left, self.right, self.feature,
            self.threshold, self.missing_left, self.base, margin,
        )  # fmt: skip
        one = np.float32(1)
        probability: Singles = one / (one + np.exp(-margin))
        return probability

    def save_model(self, path: Path) -> None:
        """As it was read."""
        path.write_bytes(self.content)

    @classmethod
    def load(cls, path: Path) -> "Forest":
        """Raises PackageError, naming the file, where it holds no binary logistic tree model."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror}") from None

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "Forest":
        """From the bytes of a file; as `load`, `path` names it in errors."""
        try:
            learner = json.loads(content)["learner"]
            objective = learner["objective"]["name"]
            if objective != OBJECTIVE:
                raise PackageError(f"{path}: objective {objective!r}, expected {OBJECTIVE!r}")
            return cls._read(learner, content)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise PackageError(f"{path}: cannot be read: not XGBoost's JSON: {error}") from None

    @classmethod
    def _read(cls, learner: dict[str, Any], content: bytes) -> "Forest":
        trees = learner["gradient_booster"]["model"]["trees"]
        score = np.float32(str(learner["learner_model_param"]["base_score"]).strip("[]"))
        if any(any(tree["split_type"]) for tree in trees):
            raise ValueError("a split by category")

        def column(name: str, kind: type) -> NDArray[Any]:
            parts: list[Any] = [np.asarray(tree[name], kind) for tree in trees]
            return np.concatenate([np.empty(0, kind), *parts])

        sizes = [len(tree["left_children"]) for tree in trees]
        return cls(
            starts=np.concatenate([[0], np.cumsum(sizes)[:-1]])[: len(trees)].astype(np.int32),
            left=column("left_children", np.int32),
            right=column("right_children", np.int32),
            feature=column("split_indices", np.int32),
            threshold=column("split_conditions", np.float32),
            missing_left=column("default_left", np.bool_),
            base=np.float32(-np.log(np.float32(1) / score - np.float32(1))),
            width=int(learner["learner_model_param"]["num_feature"]),
            content=content,
        )
