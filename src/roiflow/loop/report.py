"""What a closed loop says: ROI by week, the way from random to the oracle, cumulative regret.

Several loops of different seeds are drawn as their mean; for the served policy the range of the
seeds is drawn, too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roiflow.errors import RunError
from roiflow.features.table import Floats
from roiflow.files import write_file
from roiflow.loop.result import (
    ORACLE,
    RANDOM,
    SERVED,
    LoopResult,
    WeekOutcome,
    attainment,
    column,
    overall_roi,
    regret,
    served_weeks,
)

if TYPE_CHECKING:
    from rich.table import Table

PLOT, PAGE = "loop.png", "loop.md"
INK, ACCENT = "#3d4650", "#c2410c"
COLOURS = {
    SERVED: ACCENT,
    ORACLE: INK,
    "sasrec": "#0f766e",
    "xgboost": "#2563eb",
    "logistic": "#7c3aed",
    "popularity": "#a16207",
    "logging": "#94a3b8",
    RANDOM: "#cbd5e1",
}
LAST = 4
"""Weeks at the end that are summed up."""

Measure = Callable[[Sequence[WeekOutcome], str], Floats]


def write_report(loops: Sequence[LoopResult], folder: Path) -> None:
    """loop.png and loop.md in `folder`. Raises RunError where there is nothing to compare."""
    loops = comparable(loops)
    with write_file(folder / PLOT) as aside:
        plot(loops, aside)
    with write_file(folder / PAGE) as aside:
        aside.write_text(page(loops))


def comparable(loops: Sequence[LoopResult]) -> list[LoopResult]:
    """The loops, cut to the weeks that all of them have.

    Raises RunError where that is not one served week.
    """
    # A mean over seeds is of one set of weeks: a loop that is ahead would bend the end of every
    # curve towards its own world.
    weeks = min((len(one.weeks) for one in loops), default=0)
    cut = [LoopResult(one.seed, one.params, one.weeks[:weeks]) for one in loops]
    if not cut or not all(served_weeks(one.weeks) for one in cut):
        raise RunError(f"{weeks} weeks of {len(cut)} loops: no policy has served one yet")
    return cut


def roi(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """ROI by week (W,)."""
    return column(weeks, policy, "roi")


def cumulative_regret(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """Regret summed up over the served weeks (W,); NaN in the first."""
    lost = regret(weeks, policy)
    return np.concatenate([[np.nan], np.cumsum(lost[1:])])


def plot(loops: Sequence[LoopResult], path: Path) -> None:
    """Three panels over the weeks, as PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [one.week.partition("-")[2] for one in loops[0].weeks]
    panels: tuple[tuple[str, Measure, float], ...] = (
        ("true ROI, %", roi, 100.0),
        ("value: random 0 %, oracle 100 %", attainment, 100.0),
        ("cumulative regret, currency", cumulative_regret, 1.0),
    )
    with rc_context({"font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(13.0, 4.2), layout="constrained")
        for axes, (title, measure, scale) in zip(figure.subplots(1, 3), panels, strict=True):
            # The best last, so that it lies on top; the legend is turned round again below.
            for policy in reversed(loops[0].policies):
                _draw(axes, loops, measure, policy, scale)
            axes.set_xticks(range(len(names)), names, rotation=45)
            axes.set_title(title, fontsize=10, color=INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e3e7ec", lw=0.8)
            axes.set_axisbelow(True)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            labels[::-1],
            loc="outside lower center",
            ncols=len(labels),
            frameon=False,
        )
        # Without matplotlib's version in the file: equal figures are equal bytes.
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _draw(
    axes: Any, loops: Sequence[LoopResult], measure: Measure, policy: str, scale: float
) -> None:
    of_seeds = scale * np.stack([measure(one.weeks, policy) for one in loops])
    weeks = np.arange(of_seeds.shape[1])
    style = {"color": COLOURS.get(policy, INK), "label": policy}
    if policy == SERVED:
        axes.fill_between(weeks, of_seeds.min(0), of_seeds.max(0), color=ACCENT, alpha=0.15, lw=0)
        axes.plot(weeks, of_seeds.mean(0), "o-", lw=2.4, ms=4, zorder=5, **style)
    else:
        line = "--" if policy == ORACLE else ".-"
        axes.plot(weeks, of_seeds.mean(0), line, lw=1.4, ms=4, **style)


def lines(loops: Sequence[LoopResult]) -> list[tuple[str, ...]]:
    """By policy, best first: ROI and attainment in the first and the last served weeks, regret."""
    weeks = [served_weeks(one.weeks) for one in loops]
    # Ends of the same length in every loop, which `comparable` has cut.
    first, last = [one[:1] for one in weeks], [one[-LAST:] for one in weeks]

    def average(parts: list[list[WeekOutcome]], measure: Callable[..., float], name: str) -> float:
        return float(np.mean([measure(part, name) for part in parts]))

    def way(part: Sequence[WeekOutcome], name: str) -> float:
        return float(attainment(part, name).mean())

    def lost(part: Sequence[WeekOutcome], name: str) -> float:
        return float(regret(part, name).sum())

    found = {
        name: (
            f"{average(weeks, overall_roi, name):.3f}",
            f"{average(first, way, name):.0%}",
            f"{average(last, way, name):.0%}",
            f"{average(weeks, way, name):.0%}",
            f"{average(weeks, lost, name):,.0f}",
        )
        for name in loops[0].policies
    }
    order = sorted(found, key=lambda name: average(weeks, lost, name))
    return [(name, *found[name]) for name in order]


HEADINGS = (
    "policy",
    "true ROI",
    "way to the oracle, first served week",
    f"last {LAST} weeks",
    "all weeks",
    "cumulative regret",
)


def table(loops: Sequence[LoopResult]) -> "Table":
    """`lines` for a terminal."""
    from rich.table import Table

    made = Table(title=_title(loops))
    for number, name in enumerate(HEADINGS):
        made.add_column(name, justify="right" if number else "left")
    for line in lines(loops):
        made.add_row(*line)
    return made


def ledger(loop: LoopResult) -> "Table":
    """Week by week: who served, the true ROI, and what the gate said of the week's own run."""
    from rich.table import Table

    made = Table(title=f"Gate, seed {loop.seed}")
    for name in LEDGER:
        made.add_column(name)
    for line in _ledger_lines(loop, reasons=False):
        made.add_row(*line)
    return made


LEDGER = ("week", "served by", "true ROI", "value of the oracle's", "gate", "promoted", "seconds")


def _ledger_lines(loop: LoopResult, *, reasons: bool) -> list[tuple[str, ...]]:
    return [
        (
            one.week,
            one.served_by,
            f"{one.truth[SERVED]['roi']:.3f}",
            f"{one.truth[SERVED]['value'] / one.truth[ORACLE]['value']:.0%}",
            one.gate.verdict + (f": {one.gate.reason}" if reasons and one.gate.reason else ""),
            f"version {one.gate.version}, {one.gate.rule}" if one.gate.promoted else "no",
            f"{sum(one.seconds.values()):.0f}",
        )
        for one in loop.weeks
    ]


def page(loops: Sequence[LoopResult]) -> str:
    """The Markdown page beside the plot."""
    text = [
        "# The closed loop",
        "",
        f"{_title(loops)}. Every week the whole pipeline runs on the log of the week before's "
        "champion; the champion of the new run then fills the next week's slates.",
        "",
        f"![ROI by week, way to the oracle, cumulative regret]({PLOT})",
        "",
        *_markdown(HEADINGS, lines(loops)),
        "",
        *_says(loops),
        "",
        "All figures are the world's own expectations, not estimates from a log. *Way to the "
        "oracle* puts random at 0 % and the oracle at 100 % of the value, revenue minus cost. "
        "Regret is the oracle's value minus the policy's, summed over the served weeks. The oracle "
        "knows every probability and takes the best slate of each request; it does not save a "
        "budget for later.",
        "",
        "The baselines are rankers alone, greedy by expected value. Like the policy that served "
        "week W they come out of the run of week W - 1, from the same training rows, and see "
        "features as known in W. They do not explore; the served policy does, and pays for it.",
        "",
    ]
    for loop in loops:
        rows = _ledger_lines(loop, reasons=True)
        text += [f"## Seed {loop.seed}", "", *_markdown(LEDGER, rows), ""]
    return "\n".join(text)


def _says(loops: Sequence[LoopResult]) -> list[str]:
    weeks = [served_weeks(one.weeks) for one in loops]
    way = np.mean([attainment(one, SERVED) for one in weeks], axis=0)
    best = float(way.max())
    # The first week that is near the best one, not where it settles: one number that noise in a
    # late week does not move.
    near = int(np.argmax(way >= best - 0.05 * abs(best))) + 1
    promoted = [sum(one.gate.promoted for one in loop.weeks) for loop in loops]
    of = len(loops[0].weeks)
    lost = {
        name: float(np.mean([regret(one, name).sum() for one in weeks]))
        for name in loops[0].policies
    }
    behind = [name for name in lost if lost[name] > lost[SERVED]]
    ahead = [name for name in lost if name != ORACLE and lost[name] < lost[SERVED]]
    return [
        f"The served policy goes {way[0]:.0%} of the way from random to the oracle in its first "
        f"week and {way[-LAST:].mean():.0%} in the last {min(LAST, way.size)}; it is within 5 % of "
        f"its best week ({best:.0%}) after {near} served "
        f"{'week' if near == 1 else 'weeks'}. By cumulative regret it is ahead of "
        f"{', '.join(behind) or 'none'}, and behind {', '.join(ahead) or 'none'}. The gate "
        f"promoted {' / '.join(map(str, promoted))} of {of} runs.",
    ]


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(headings)} |",
        "|" + "---|" * len(headings),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _title(loops: Sequence[LoopResult]) -> str:
    seeds = ", ".join(str(one.seed) for one in loops)
    weeks = loops[0].weeks
    served = len(served_weeks(weeks))
    return (
        f"{len(weeks)} weeks, {weeks[0].week} to {weeks[-1].week}, {served} of them served; "
        f"seed{'s' if len(loops) > 1 else ''} {seeds}"
    )
