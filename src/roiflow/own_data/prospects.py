"""What can and cannot be said about a week of data, before anything is trained on it.

Each answer is held against the limit of params.yaml that a run will hold it against.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from roiflow.own_data.facts import Facts
from roiflow.params import Params

Answer = Literal["yes", "doubtful", "no"]

NO_PROPENSITIES = "no propensities: no off-policy estimate, only the model's word"

_Z = 1.96


@dataclass(frozen=True)
class Prospect:
    """One thing that a run wants to say."""

    what: str
    answer: Answer
    why: str


def prospects(facts: Facts, params: Params) -> list[Prospect]:
    """In the order in which a run meets them."""
    auc = _auc(facts, params)
    return [
        _training(facts),
        auc,
        _conversions(facts),
        _logged_roi(facts),
        _off_policy(facts, params),
        _promotion(params, auc),
    ]


def _training(facts: Facts) -> Prospect:
    what, found = "train a ranker", facts.amounts
    if not found.earlier_impressions:
        return Prospect(what, "no", "no week before the tested one: bring at least one more")
    if not found.earlier_clicks:
        return Prospect(what, "no", "no click in the weeks before the tested one")
    why = f"{found.earlier_clicks:,} clicks in {found.earlier_impressions:,} earlier impressions"
    return Prospect(what, "yes", why)


def auc_margin(positives: int, negatives: int) -> float:
    """Half width of the 95 % interval of an AUC of 0.5  (Hanley & McNeil, 1982)."""
    variance = (positives + negatives + 1) / (12 * positives * negatives)
    return float(_Z * np.sqrt(variance))


def _auc(facts: Facts, params: Params) -> Prospect:
    found, least = facts.amounts, params.screen.min_click_auc
    what = f"a click AUC surely over {least:g} (screen.min_click_auc)"
    misses = found.impressions - found.clicks
    if not found.clicks or not misses:
        return Prospect(what, "no", f"{found.clicks:,} of {found.impressions:,} were clicked")
    needed = least + auc_margin(found.clicks, misses)
    why = f"{found.clicks:,} clicks: a model passes from an AUC of about {needed:.3f} on"
    return Prospect(what, "yes" if needed < 1 else "no", why)


def _conversions(facts: Facts) -> Prospect:
    what, found = "what a conversion is worth", facts.amounts
    to_come = sum(day.to_come for day in facts.days)
    if not found.earlier_conversions:
        return Prospect(what, "no", "no conversion in the weeks before the tested one")
    why = f"{found.earlier_conversions:,} conversions before, {found.conversions:,} in the week"
    return Prospect(what, "yes", f"{why}, about {to_come:,.0f} of it still to come")


def _logged_roi(facts: Facts) -> Prospect:
    what, found = "the return on ad spend of what was shown", facts.amounts
    if found.cost <= 0:
        return Prospect(what, "no", "cost_micros is 0 everywhere: there is nothing to divide by")
    if found.revenue <= 0:
        return Prospect(what, "no", "no revenue in the week")
    return Prospect(
        what, "yes", f"revenue {found.revenue / 1e6:,.2f} over cost {found.cost / 1e6:,.2f}"
    )


def _off_policy(facts: Facts, params: Params) -> Prospect:
    what, found, limits = "what another policy would have earned", facts.amounts, params.evaluate
    if not found.slates_logged:
        return Prospect(
            what, "no", "no propensities: no off-policy estimate, only the model's word"
        )
    # Effective sample sizes. The logged policy weighs every slate 1; one that always shows one ad
    # weighs only the slates that had it on top, as many as its propensities let expect.
    most = min(found.slates_logged, limits.requests)
    least, needed = most * found.mean_propensity, limits.min_effective_sample_size
    why = (
        f"{most:,} slates with propensities are worth {least:,.0f} (a policy that always shows one "
        f"ad) to {most:,} (the logged one), {needed:g} are needed"
    )
    if 1 / found.least_propensity > limits.max_weight:
        heavy = f"the least propensity, {found.least_propensity:.3g}, may weigh over "
        return Prospect(what, "doubtful", f"{why}; {heavy}{limits.max_weight:g}")
    answer: Answer = "no" if most < needed else "yes" if least >= needed else "doubtful"
    return Prospect(what, answer, why)


def _promotion(params: Params, auc: Prospect) -> Prospect:
    what = "a champion without a person's word"
    if auc.answer == "no":
        why = f"the screen will refuse it for want of {auc.what}: roiflow approve overrides it"
        return Prospect(what, "no", why)
    later = "every later one has to show on trial, beside the champion, that it is as good"
    if params.screen.first_model == "allow":
        why = f"a first model goes on by the first-model rule, if its other checks pass; {later}"
        return Prospect(what, "yes", why)
    return Prospect(what, "no", f"a first model needs a person (screen.first_model); {later}")


def hindrances(facts: Facts, source: str, weeks: int, length: int, params: Params) -> list[str]:
    """Why a run would stop, each with what to do; none where it would go on.

    `weeks` are there of the `length` that the source's window has.
    """
    stops = []
    if weeks < length:
        stops.append(
            f"{weeks} of the {length} weeks that end with {facts.week} are there: bring the "
            f"others, or set ingest.{source}.weeks to {weeks} in params.yaml"
        )
    limit = params.validate_.max_quarantined_fraction
    stops += [
        f"{part.bad:,} of {part.rows:,} rows of {part.table} in {part.week} are set aside, over "
        f"{limit:.2%} (validate.max_quarantined_fraction): mend them as shown above"
        for part in facts.refused
    ]
    return stops
