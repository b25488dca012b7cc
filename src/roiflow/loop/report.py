"""What a closed loop says: the way to the oracle by week, who was tried and promoted, regret.

The gate's way is drawn beside a frozen champion's and beside that of promoting always.

Several loops of different seeds are drawn as their mean; for the served policy the range of the
seeds is drawn, too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import RunError
from roiflow.features.table import Floats
from roiflow.files import write_file
from roiflow.loop.promises import true_lift
from roiflow.loop.result import (
    FIRST,
    GREEDY,
    LOGGING,
    NEWEST,
    ORACLE,
    RANDOM,
    SERVED,
    LoopResult,
    WeekOutcome,
    attainment,
    from_first_champion,
    overall_roi,
    overall_value,
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
    NEWEST: "#0f766e",
    FIRST: "#64748b",
    "xgboost": "#2563eb",
    "logistic": "#7c3aed",
    "popularity": "#a16207",
    LOGGING: "#94a3b8",
    RANDOM: "#cbd5e1",
}
TITLES = {SERVED: "served: the gate", FIRST: "frozen champion", NEWEST: "promote always"}
"""Of policies whose name alone does not say what they are."""
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


def cumulative_regret(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """Regret summed up over the served weeks (W,); NaN in the first."""
    lost = regret(weeks, policy)
    return np.concatenate([[np.nan], np.cumsum(lost[1:])])


def plot(loops: Sequence[LoopResult], path: Path) -> None:
    """Three panels over the weeks, as PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    every = loops[0].policies
    names = [one.week.partition("-")[2] for one in loops[0].weeks]
    ways = [name for name in every if name in TITLES]
    panels: tuple[tuple[str, Measure, float, Sequence[str]], ...] = (
        ("way from random (0 %) to the oracle (100 %)", attainment, 100.0, ways),
        ("the same, beside policies without a decision", attainment, 100.0, every),
        ("cumulative regret, currency", cumulative_regret, 1.0, every),
    )
    with rc_context({"font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(13.0, 4.2), layout="constrained")
        drawn = figure.subplots(1, 3)
        for axes, (title, measure, scale, some) in zip(drawn, panels, strict=True):
            # The best last, so that it lies on top; the legend is turned round again below.
            for policy in reversed(some):
                _draw(axes, loops, measure, policy, scale)
            axes.set_xticks(range(len(names)), names, rotation=45)
            axes.set_title(title, fontsize=10, color=INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e3e7ec", lw=0.8)
            axes.set_axisbelow(True)
        handles, labels = drawn[1].get_legend_handles_labels()
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
    style = {"color": COLOURS.get(policy, INK), "label": TITLES.get(policy, policy)}
    if policy == SERVED:
        axes.fill_between(weeks, of_seeds.min(0), of_seeds.max(0), color=ACCENT, alpha=0.15, lw=0)
        axes.plot(weeks, of_seeds.mean(0), "o-", lw=2.4, ms=4, zorder=5, **style)
    else:
        line = "--" if policy == ORACLE else ".-"
        axes.plot(weeks, of_seeds.mean(0), line, lw=1.4, ms=4, **style)


def lines(loops: Sequence[LoopResult]) -> list[tuple[str, ...]]:
    """By policy, best first: ROI, attainment in the first and the last served weeks, value.

    Value is summed over the served weeks, and from the first on that a champion of ours began.
    """
    weeks = [served_weeks(one.weeks) for one in loops]
    # Ends of the same length in every loop, which `comparable` has cut.
    first, last = [one[:1] for one in weeks], [one[-LAST:] for one in weeks]
    ours = [from_first_champion(one) for one in weeks]

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
            f"{average(weeks, overall_value, name):,.0f}",
            f"{average(ours, overall_value, name):,.0f}",
        )
        for name in loops[0].policies
    }
    order = sorted(found, key=lambda name: average(weeks, lost, name))
    return [(TITLES.get(name, name), *found[name]) for name in order]


HEADINGS = (
    "policy",
    "true ROI",
    "way to the oracle, first served week",
    f"last {LAST} weeks",
    "all weeks",
    "value, all served weeks",
    "value, with a champion of ours",
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
    """Week by week: who served, what was tried beside it, how it was decided, what it was worth."""
    from rich.table import Table

    made = Table(title=f"Weeks of seed {loop.seed}")
    told = [at for at, name in enumerate(LEDGER) if name not in ON_THE_PAGE]
    for at in told:
        made.add_column(LEDGER[at])
    for line in _ledger_lines(loop, reasons=False):
        made.add_row(*(line[at] for at in told))
    return made


LEDGER = (
    "week",
    "stable",
    "on trial",
    "users, from hour",
    "looks",
    "lift, estimated",
    "true lift",
    "verdict",
    "errors left",
    "serves next",
    "way",
    "click ECE",
    "seconds",
)


ON_THE_PAGE = ("users, from hour", "looks", "errors left", "click ECE", "seconds")
"""For which a terminal has no room."""


def _ledger_lines(loop: LoopResult, *, reasons: bool) -> list[tuple[str, ...]]:
    way = attainment(loop.weeks, SERVED)
    return [
        (
            one.week,
            one.served_by,
            (one.trial.challenger or "none")[:12],
            _shares(one),
            str(len(one.trial.trial.looks)) if one.trial.trial else "",
            _lift(one),
            f"{one.true_lift:+.1%}" if np.isfinite(one.true_lift) else "",
            one.trial.verdict + (f": {one.trial.reason}" if reasons and one.trial.reason else ""),
            _left(one),
            _next(one),
            f"{reached:.0%}",
            f"{one.clicks.settled:.4f}" if one.clicks and one.clicks.settled is not None else "",
            f"{sum(one.seconds.values()):.0f}",
        )
        for one, reached in zip(loop.weeks, way, strict=True)
    ]


def _shares(week: WeekOutcome) -> str:
    """Of the users in the canary arm, and since which hour of the week."""
    trial, start = week.trial.trial, Week.parse(week.week).start if week.trial.trial else 0
    phases = trial.phases if trial else ()
    return ", ".join(
        f"{one.share:.0%} from {(one.since - start) / MICROS_PER_HOUR:.0f}" for one in phases
    )


def _lift(week: WeekOutcome) -> str:
    found = week.trial.lift
    return f"{found.value:+.1%} ({found.low:+.1%} to {found.high:+.1%})" if found else ""


def _left(week: WeekOutcome) -> str:
    """Of the year's error budget, before the decision."""
    return f"{week.trial.budget.left:.3f}" if week.trial.budget else ""


def _next(week: WeekOutcome) -> str:
    if week.gate.promoted:
        return f"version {week.gate.version}, by {week.gate.rule}"
    return (week.gate.champion or LOGGING)[:12]


def page(loops: Sequence[LoopResult]) -> str:
    """The Markdown page beside the plot."""
    text = [
        "# The closed loop",
        "",
        f"{_title(loops)}. Every week the whole pipeline runs on the log of the week before, and "
        "what it makes is tried in the next week beside the champion: on a few users first, then "
        "on half of them. The run after decides on it by the log of both.",
        "",
        f"![Way to the oracle by week, cumulative regret]({PLOT})",
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
        "The *frozen champion* is the first one, never replaced; *promote always* serves every "
        "run's package to everybody in the week after. Both are valued by the slates that they "
        "draw on the log of each week, so they meet features that the served policy moved. The "
        "rankers alone are greedy by expected value, and are fitted anew every week on all rows, "
        "as what ships is; they do not explore and wait for no evidence. What served did both: in "
        "its first week it had a few users, and the logging policy the others. So value is summed "
        "twice, over all the served weeks and from the first one on that began with a champion.",
        "",
        "A *lift* is the challenger's value over the champion's, less one, in the week that it was "
        "tried in. *Errors left* is what earlier decisions left of the year's error budget.",
        "",
    ]
    for loop in loops:
        rows = _ledger_lines(loop, reasons=True)
        text += [f"## Seed {loop.seed}", "", *_markdown(LEDGER, rows), ""]
    return "\n".join(text)


def _says(loops: Sequence[LoopResult]) -> list[str]:
    weeks = [served_weeks(one.weeks) for one in loops]
    ways = {
        name: np.stack([attainment(one, name) for one in weeks])
        for name in (SERVED, FIRST, NEWEST)
        if name in loops[0].policies
    }
    way = ways[SERVED]
    last = min(LAST, way.shape[1])
    beside = ", ".join(
        f"{TITLES[name]} {found[:, -last:].mean():.0%}"
        for name, found in ways.items()
        if name != SERVED
    )
    made = [[one for one in loop.weeks if one.by_evidence] for loop in loops]
    lifts = [
        true_lift(one, loop.weeks) for loop, some in zip(loops, made, strict=True) for one in some
    ]
    worst = f" The least true lift of a promoted one is {min(lifts):+.1%}." if lifts else ""
    ece = [
        one.clicks.settled
        for part in weeks
        for one in part
        if one.clicks and one.clicks.settled is not None
    ]
    calibrated = f" Click ECE of what served is at most {max(ece):.3f}." if ece else ""
    return [
        f"The served policy goes {way[:, 0].mean():.0%} of the way from random to the oracle in "
        f"its first week and {way[:, -last:].mean():.0%} in the last {last}"
        + (f" ({beside})" if beside else "")
        + f". Promotions by evidence: {' / '.join(str(len(some)) for some in made)} of "
        f"{len(loops[0].weeks) - 1} trials.{worst}{calibrated} {_against(loops)}",
    ]


def _against(loops: Sequence[LoopResult]) -> str:
    """Cumulative value of what served over each greedy ranker, once a champion was there."""
    since = [from_first_champion(served_weeks(one.weeks)) for one in loops]

    def over(name: str) -> float:
        own, theirs = (sum(overall_value(one, which) for one in since) for which in (SERVED, name))
        return own / theirs - 1.0 if theirs else float("nan")

    there = [name for name in GREEDY if name in loops[0].policies and any(since)]
    told = ", ".join(f"{over(name):+.1%} over {name}" for name in there)
    return f"Its value since a champion of ours serves is {told}." if told else ""


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
