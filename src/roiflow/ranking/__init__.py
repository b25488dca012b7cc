"""Rankers: who will click, who will buy, for how much."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roiflow.ranking.rosa import RosaRanker


def load(folder: Path) -> "RosaRanker":
    """The ranker that the train_ranker stage wrote; raises PackageError, naming the file."""
    from roiflow.ranking.rosa import RosaRanker

    return RosaRanker.load(folder)
