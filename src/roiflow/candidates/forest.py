"""Saved XGBoost models as compiled code: scoring needs neither xgboost nor what it imports.

QuickScorer (Lucchese et al., SIGIR 2015): a tree is not walked. Each leaf is a bit; a split that
sends a row right clears the bits of its left side; the lowest bit that stays is the row's leaf.
Splits are visited by feature, so a row's branches become comparisons of one column. Beyond the
paper: all outcomes' trees in one pass; rows in blocks, whose comparisons compile to vector code;
and a split that all rows of a block answer alike, as a request's do where its user decides, costs
one operation a block. Sums are float32 in XGBoost's order of trees, so that answers are
equal up to the last bits of the logistic function.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roiflow.candidates.design import Rows
from roiflow.errors import PackageError
from roiflow.features.kernels import kernel
from roiflow.features.table import Flags, Ints, Singles

OBJECTIVE = "binary:logistic"
MAX_LEAVES = 64
"""Of a tree: its leaves are the bits of one word."""

BLOCK = 128
"""Rows at a time: a tree's words of a block and the block's columns stay in the first cache."""

LANES = 8
"""Blocks are filled up to whole vectors, so that compiled loops have no rest."""


class Word(NamedTuple):
    """The unsigned type that holds a tree's leaves, 32 or 64 bits; compiled code has one form each.

    `multiplier` is a de Bruijn sequence: the product with a power of two has a different number in
    its top bits for each, `product >> shift`. That numbers a lone bit without a loop or a branch.
    """

    every: Any
    one: Any
    multiplier: Any
    shift: Any


WORDS = {
    32: Word(*(np.uint32(x) for x in (0xFFFFFFFF, 1, 0x077CB531, 27))),
    64: Word(*(np.uint64(x) for x in (0xFFFFFFFFFFFFFFFF, 1, 0x03F79D71B4CB0A89, 58))),
}


class Splits(NamedTuple):
    """Inner nodes of all trees, ordered by feature, then by threshold."""

    feature: Ints  # (u,) that a split reads
    edges: Ints  # (u + 1,) splits of feature i are rows edges[i] to edges[i + 1]
    threshold: Singles  # (splits,) smaller values go left
    tree: Ints  # (splits,)
    right: NDArray[Any]  # (splits,) words: the leaves that a row keeps when it goes right
    missing_left: Flags  # (splits,)


class Leaves(NamedTuple):
    """Values of the leaves, and where each outcome's trees begin."""

    value: Singles  # (trees, 32 or 64) by the number that the de Bruijn sequence gives a leaf's bit
    edges: Ints  # (outcomes + 1,) trees of outcome o are rows edges[o] to edges[o + 1]
    base: Singles  # (outcomes,) margin before the first tree


class Block(NamedTuple):
    """Some rows by column, and what is known of all of them."""

    columns: Singles  # (F + C, BLOCK)
    low: Singles  # (F + C,) smallest value
    high: Singles  # (F + C,) largest value
    missing: Flags  # (F + C,) a value is missing


@kernel
def _load(rows: Any, start: int, size: int, block: Any) -> None:
    """Fill a block with `size` rows, read in the order in which they lie in memory."""
    numbers, codes, columns = rows.numbers, rows.codes, block.columns
    low, high, missing = block.low, block.high, block.missing
    width, wide = numbers.shape[1], numbers.shape[1] + codes.shape[1]
    low.fill(np.inf)
    high.fill(-np.inf)
    missing.fill(False)
    for at in range(size):
        for number in range(width):
            columns[number, at] = numbers[start + at, number]
        for code in range(codes.shape[1]):
            columns[width + code, at] = codes[start + at, code]
        # By row, not by column: neighbours in memory then make a vector, and none waits.
        for number in range(width):
            value = numbers[start + at, number]
            low[number] = value if value < low[number] else low[number]
            high[number] = value if value > high[number] else high[number]
            missing[number] |= np.isnan(value)
        for code in range(width, wide):
            value = columns[code, at]
            low[code] = value if value < low[code] else low[code]
            high[code] = value if value > high[code] else high[code]
    for column in range(width):
        if missing[column]:  # no split is decided for the block
            low[column], high[column] = -np.inf, np.inf


@kernel
def _go_right(
    column: Singles, threshold: Any, left: Any, right: Any, every: Any, alive: Any
) -> None:
    """Clear the left side's leaves of the rows that go right; `left`: missing values go left."""
    if left:  # a comparison with a missing value is false: the two forms differ in it
        for at in range(alive.size):
            alive[at] &= right if column[at] >= threshold else every
    else:
        for at in range(alive.size):
            alive[at] &= every if column[at] < threshold else right


@kernel
def _margins(rows: Any, splits: Any, leaves: Any, word: Any, out: Singles) -> None:
    """Rows (n,) -> margins (outcomes, n)."""
    count, trees = rows.numbers.shape[0], leaves.value.shape[0]
    bits = splits.right.dtype.type
    alive = np.empty((trees, BLOCK), splits.right.dtype)
    shared = np.empty(trees, splits.right.dtype)
    wide = rows.numbers.shape[1] + rows.codes.shape[1]
    block = Block(
        np.zeros((wide, BLOCK), np.float32), np.empty(wide, np.float32),
        np.empty(wide, np.float32), np.empty(wide, np.bool_),
    )  # fmt: skip
    total = np.empty(BLOCK, np.float32)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        width = (size + LANES - 1) // LANES * LANES
        alive.fill(word.every)
        shared.fill(word.every)
        _load(rows, start, size, block)
        for number in range(splits.feature.size):
            feature = splits.feature[number]
            low, high = block.low[feature], block.high[feature]
            for split in range(splits.edges[number], splits.edges[number + 1]):
                threshold, tree = splits.threshold[split], splits.tree[split]
                if threshold > high:  # and so are the rest: all rows go left
                    break
                if threshold <= low:
                    shared[tree] &= splits.right[split]
                else:
                    _go_right(
                        block.columns[feature], threshold, splits.missing_left[split],
                        splits.right[split], word.every, alive[tree, :width],
                    )  # fmt: skip
        # Trees outside, rows inside: each row still adds its leaves in the order of the trees, and
        # neighbouring rows do not wait for one another.
        for outcome in range(leaves.base.size):
            total.fill(leaves.base[outcome])
            for tree in range(leaves.edges[outcome], leaves.edges[outcome + 1]):
                for at in range(width):
                    left = alive[tree, at] & shared[tree]
                    # Cast, since compiled integers otherwise widen, and half as many fit a vector.
                    lowest = bits(left & bits(~left + word.one))
                    total[at] += leaves.value[tree, bits(lowest * word.multiplier) >> word.shift]
            for at in range(size):
                out[outcome, start + at] = total[at]


@dataclass(frozen=True)
class Booster:
    """What a file of XGBoost's says: trees as lists of nodes, node 0 the root."""

    trees: tuple[dict[str, Any], ...]
    base: np.float32
    """Margin before the first tree."""
    content: bytes

    @classmethod
    def load(cls, path: Path) -> "Booster":
        """Raises PackageError, naming the file, where it holds no binary logistic tree model."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror}") from None

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "Booster":
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
    def _read(cls, learner: dict[str, Any], content: bytes) -> "Booster":
        trees = learner["gradient_booster"]["model"]["trees"]
        score = np.float32(str(learner["learner_model_param"]["base_score"]).strip("[]"))
        if any(any(tree["split_type"]) for tree in trees):
            raise ValueError("a split by category")
        most = max((_leaf_count(tree) for tree in trees), default=0)
        if most > MAX_LEAVES:
            raise ValueError(f"a tree of {most} leaves, more than {MAX_LEAVES}")
        # A probability in the file; what XGBoost starts from is its logit, in float32.
        base = np.float32(-np.log(np.float32(1) / score - np.float32(1)))
        return cls(tuple(trees), base, content)


@dataclass(frozen=True)
class Forest:
    """The trees of several outcomes, ready to score."""

    splits: Splits
    leaves: Leaves
    word: Word

    @classmethod
    def of(cls, boosters: Sequence[Booster]) -> "Forest":
        """The boosters' trees, one outcome each."""
        trees = [tree for booster in boosters for tree in booster.trees]
        bits = 32 if all(_leaf_count(tree) <= 32 for tree in trees) else 64
        word = WORDS[bits]
        value = np.zeros((len(trees), bits), np.float32)
        nodes = []
        # Done once a model, in plain Python: a few thousand nodes take milliseconds.
        for number, tree in enumerate(trees):
            for bit, leaf in enumerate(_leaves(tree, 0)):
                place = (int(word.multiplier) << bit & int(word.every)) >> int(word.shift)
                value[number, place] = tree["split_conditions"][leaf]
            nodes += list(_splits(tree, number, int(word.every)))
        nodes.sort()
        feature, threshold, of_tree, right, missing_left = (
            zip(*nodes, strict=True) if nodes else ((),) * 5
        )
        used, edges = np.unique(np.array(feature, np.int32), return_index=True)
        counts = np.cumsum([0, *(len(booster.trees) for booster in boosters)])
        return cls(
            Splits(
                used,
                np.append(edges, len(nodes)).astype(np.int32),
                np.array(threshold, np.float32),
                np.array(of_tree, np.int32),
                np.array(right, word.one.dtype),
                np.array(missing_left, np.bool_),
            ),
            Leaves(
                value,
                counts.astype(np.int32),
                np.array([booster.base for booster in boosters], np.float32),
            ),
            word,
        )

    def margins(self, rows: Rows) -> Singles:
        """Rows (n,) -> logits (outcomes, n)."""
        margin = np.empty((self.leaves.base.size, rows.numbers.shape[0]), np.float32)
        _margins(rows, self.splits, self.leaves, self.word, margin)
        return margin


def _leaf_count(tree: dict[str, Any]) -> int:
    return sum(child < 0 for child in tree["left_children"])


def _leaves(tree: dict[str, Any], node: int) -> Iterator[int]:
    """Leaves under a node, from left to right."""
    if tree["left_children"][node] < 0:
        yield node
    else:
        yield from _leaves(tree, tree["left_children"][node])
        yield from _leaves(tree, tree["right_children"][node])


def _splits(
    tree: dict[str, Any], number: int, every: int, node: int = 0, first: int = 0
) -> Iterator[tuple[int, float, int, int, bool]]:
    """(feature, threshold, tree, word of the leaves that are not left of it, missing left) of each
    split under a node whose leaves begin with leaf `first`.
    """
    left, right = tree["left_children"][node], tree["right_children"][node]
    if left < 0:
        return
    below = len(list(_leaves(tree, left)))
    kept = every & ~(((1 << below) - 1) << first)
    threshold = float(np.float32(tree["split_conditions"][node]))
    yield tree["split_indices"][node], threshold, number, kept, bool(tree["default_left"][node])
    yield from _splits(tree, number, every, left, first)
    yield from _splits(tree, number, every, right, first + below)
