"""Pre-selection: from every eligible ad to the top K, by logistic regression or XGBoost."""

from pathlib import Path

from roiflow.candidates.selector import KINDS, Kind, Selector, fit, load_selector

CHOICE = "kind"
"""File of the candidates folder that names the kind that is used."""

__all__ = ["CHOICE", "KINDS", "Kind", "Selector", "fit", "load"]


def load(folder: Path, kind: Kind | None = None) -> Selector:
    """The selector that the train_candidates stage chose, or its `kind`.

    The folder may also be that of one selector alone. Raises PackageError, naming the file.
    """
    choice = folder / CHOICE
    if kind is None and choice.is_file():
        return load_selector(folder / choice.read_text().strip())
    return load_selector(folder / kind if kind else folder)
