"""What a closed loop of the shipped world is held to, over its weeks: what is broken, in words.

Each is of the world's own expectations. Nothing here runs a loop: results that lie there are read.
"""

import math
from collections.abc import Sequence

import numpy as np

from roiflow.loop.result import (
    GREEDY,
    SERVED,
    LoopResult,
    WeekOutcome,
    attainment,
    from_first_champion,
    overall_value,
    served_weeks,
)

LAST = 4
"""Weeks at the end that are averaged."""
LEAST_WAY = 0.80
"""Of the way from random to the oracle, in the last weeks."""
LEAST_CLIMB = 0.08
"""More of it than in the first served week."""
LEAST_PROMOTIONS = 5
"""By evidence."""
LARGEST_LOSS = 0.03
"""Of what a promoted challenger is truly worth, against what it replaced."""
LARGEST_ECE = 0.03
"""Of the clicks on what a package shows, from its second day on."""


def broken(loop: LoopResult) -> list[str]:
    """Promises that a loop of twelve weeks breaks; empty where it keeps them all."""
    found = [
        *climb(loop.weeks),
        *promotions(loop.weeks),
        *calibration(loop.weeks),
        *ahead(loop.weeks),
    ]
    return [f"seed {loop.seed}: {one}" for one in found]


def climb(weeks: Sequence[WeekOutcome]) -> list[str]:
    """The way to the oracle at the end, and how much more it is than at first."""
    way = attainment(served_weeks(weeks), SERVED)
    last, first = float(way[-LAST:].mean()), float(way[0])
    found = []
    if last < LEAST_WAY:
        found.append(f"{last:.1%} of the way in the last {LAST} weeks, under {LEAST_WAY:.0%}")
    if last - first < LEAST_CLIMB:
        found.append(f"{last:.1%} at last from {first:.1%} at first: under {LEAST_CLIMB:.0%} more")
    return found


def promotions(weeks: Sequence[WeekOutcome]) -> list[str]:
    """How many there are by evidence, and what each is truly worth."""
    made = [one for one in weeks if one.by_evidence]
    found = []
    if len(made) < LEAST_PROMOTIONS:
        found.append(f"{len(made)} promotions by evidence, under {LEAST_PROMOTIONS}")
    for one in made:
        lift = true_lift(one, weeks)
        # A lift that is not known is none that was shown to be harmless.
        if not lift >= -LARGEST_LOSS:
            found.append(f"{one.week}: promoted with a true lift of {lift:+.2%}")
    return found


def true_lift(promoted: WeekOutcome, weeks: Sequence[WeekOutcome]) -> float:
    """Of a promoted challenger over the weeks that it was on trial in; NaN where none is known."""
    # Its evidence is of all those weeks: one in which the two were alike does not stand for them.
    tried = [one for one in weeks if one.trial.challenger == promoted.trial.challenger]
    lifts = [one.true_lift for one in tried if one.week <= promoted.week]
    return float(np.mean(lifts)) if lifts else math.nan


def calibration(weeks: Sequence[WeekOutcome]) -> list[str]:
    """Click ECE of each served week."""
    return [
        f"{one.week}: click ECE {one.clicks.settled:.4f}, over {LARGEST_ECE}"
        for one in served_weeks(weeks)
        if one.clicks and one.clicks.settled is not None and one.clicks.settled > LARGEST_ECE
    ]


def ahead(weeks: Sequence[WeekOutcome]) -> list[str]:
    """Cumulative value against each greedy baseline, once a champion of ours serves."""
    since = from_first_champion(weeks)
    if not since:
        return ["no champion of ours ever served"]
    own = overall_value(since, SERVED)
    found = []
    for name in GREEDY:
        theirs = overall_value(since, name)
        if not own > theirs:
            found.append(f"{own:,.0f} of value from {since[0].week} on, {name} has {theirs:,.0f}")
    return found
