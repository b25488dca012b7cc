"""What an ablation says: a table of features and groups with marks, and a picture of it.

Figures are means over seeds with their standard deviations.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from roiflow.artefacts.record import Artefact
from roiflow.errors import ContractError
from roiflow.features.spec import NAMES
from roiflow.features.table import Floats
from roiflow.files import write_file
from roiflow.loop.ablation import EVERYTHING, Gain, Measured, gains, groups

if TYPE_CHECKING:
    from rich.table import Table

PLOT, PAGE = "ablation.png", "features.md"
BEGINS, ENDS = "<!-- ablation -->", "<!-- /ablation -->"
LEAK = "**leak?**"


@dataclass(frozen=True)
class Ablation(Artefact):
    """The models of one seed so far, and how far features move under another policy."""

    nan: ClassVar[bool] = True  # an AUC of one class alone

    seed: int
    digest: str
    """Of the parameters and the features."""
    measured: dict[str, Measured]
    shift: dict[str, float]


@dataclass(frozen=True)
class Line:
    """A feature or a group: (seeds,) of each figure."""

    name: str
    points: Floats | None
    click_auc: Floats
    click_loss: Floats
    conversion_loss: Floats
    shift: Floats | None
    """The largest of a group's, whichever its sign."""
    suspicious: bool


def lines(seeds: Sequence[Ablation], auc_gain: float) -> list[Line]:
    """Groups, each followed by its features."""
    of_seeds = [gains(one.measured) for one in seeds]
    found: list[Line] = []
    for group, members in groups().items():
        alone = len(members) == 1
        names = [group] if members[0] not in NAMES else [group, *([] if alone else members)]
        found += [
            _line(name, members if name == group else (name,), seeds, of_seeds, auc_gain)
            for name in names
            if all(name in some for some in of_seeds)
        ]
    return found


def _line(
    name: str,
    members: Sequence[str],
    seeds: Sequence[Ablation],
    of_seeds: Sequence[dict[str, Gain]],
    auc_gain: float,
) -> Line:
    of = [some[name] for some in of_seeds]

    def every(figure: Callable[[Gain], float]) -> Floats:
        return np.array([figure(one) for one in of])

    known = [one.points for one in of if one.points is not None]
    moved = [
        max((one.shift[member] for member in members), key=abs)
        for one in seeds
        if all(member in one.shift for member in members)
    ]
    return Line(
        name,
        np.array(known) if len(known) == len(of) else None,
        every(lambda one: one.click_auc),
        every(lambda one: one.click_loss),
        every(lambda one: one.conversion_loss),
        np.array(moved) if moved else None,
        any(one.suspicious(auc_gain) for one in of),
    )


HEADINGS = (
    "left out",
    "points of the way to the oracle",
    "click AUC x 1000",
    "click log loss x 1000",
    "conversion log loss x 1000",
    "shift under another policy",
    "",
)


def cells(line: Line) -> tuple[str, ...]:
    """A row of the table: what the feature adds, so more is better everywhere but in the shift."""
    return (
        line.name,
        _figure(line.points, 2),
        _figure(1000 * line.click_auc, 2),
        _figure(1000 * line.click_loss, 3),
        _figure(1000 * line.conversion_loss, 2),
        _figure(line.shift, 2),
        LEAK if line.suspicious else "",
    )


def _figure(values: Floats | None, digits: int) -> str:
    if values is None:
        return "-"
    mean = f"{values.mean():+.{digits}f}"
    return f"{mean} ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else mean


def head(seeds: Sequence[Ablation]) -> str:
    """What the model with all features comes to, in words."""
    full = [one.measured[EVERYTHING] for one in seeds]
    points = [one.points for one in full if one.points is not None]
    way = (
        f" {_figure(np.array(points), 1).lstrip('+')} % of the way from random to the oracle,"
        if points
        else " no truth is known, so nothing is said of value or of another policy;"
    )
    auc = np.mean([one.click_auc for one in full])
    names = ", ".join(str(one.seed) for one in seeds)
    which = f"seeds {names}" if len(seeds) > 1 else f"seed {names}"
    return f"All {len(NAMES)} features, {which}:{way} click AUC {auc:.4f}."


def table(seeds: Sequence[Ablation], auc_gain: float) -> "Table":
    """`lines` for a terminal."""
    from rich.table import Table

    made = Table(title=head(seeds))
    for number, name in enumerate(HEADINGS):
        made.add_column(name, justify="right" if 0 < number < len(HEADINGS) - 1 else "left")
    for line in lines(seeds, auc_gain):
        made.add_row(*cells(line))
    return made


def page(seeds: Sequence[Ablation], auc_gain: float) -> str:
    """The part of docs/features.md between its markers."""
    rows = [HEADINGS, ("---", *("---:",) * 5, "---"), *map(cells, lines(seeds, auc_gain))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{head(seeds)}\n\n{table}\n\n![What each feature adds]({PLOT})"


def write_report(seeds: Sequence[Ablation], auc_gain: float, folder: Path) -> None:
    """Picture and table into a folder of pages. Raises ContractError where it has no place."""
    path = folder / PAGE
    text = path.read_text()
    place = re.compile(f"{re.escape(BEGINS)}.*{re.escape(ENDS)}", re.DOTALL)
    if not place.search(text):
        raise ContractError(f"{path}: no place between {BEGINS} and {ENDS}")
    with write_file(folder / PLOT) as aside:
        plot(lines(seeds, auc_gain), aside)
    made = f"{BEGINS}\n{page(seeds, auc_gain)}\n{ENDS}"
    with write_file(path) as aside:
        aside.write_text(place.sub(lambda _: made, text))


INK, ACCENT, MUTED = "#3d4650", "#c2410c", "#94a3b8"


def plot(found: Sequence[Line], path: Path) -> None:
    """Points added and the shift, one line a feature, groups in colour; as PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [line for line in found if line.points is not None and line.shift is not None]
    with rc_context({"font.family": "sans-serif", "font.size": 8}):
        figure = Figure(figsize=(10.0, 1.2 + 0.19 * len(shown)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, line in enumerate(shown):
            colour = ACCENT if line.name in groups() else INK
            for axes, values in ((left, line.points), (right, line.shift)):
                assert values is not None
                axes.plot([values.min(), values.max()], [place, place], color=colour, alpha=0.5)
                axes.plot([values.mean()], [place], "o", color=colour, ms=4)
        left.set_yticks(range(len(shown)), [line.name for line in shown])
        left.invert_yaxis()
        for axes, title in (
            (left, "points of the way to the oracle that it adds"),
            (right, "shift under another policy, standard deviations"),
        ):
            axes.set_title(title, fontsize=9, color=INK)
            axes.axvline(0, color=MUTED, lw=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="x", color="#e3e7ec", lw=0.8)
            axes.set_axisbelow(True)
        # Without matplotlib's version in the file: equal figures are equal bytes.
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
