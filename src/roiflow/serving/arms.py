"""Two policies that serve one week of the simulated world, and whoever watches them meanwhile.

Users are split as the edge splits them; each arm recalibrates itself on its own users. While a
look is to come both arms are asked about every request, for a comparison wants to know what the
other would have done; afterwards each is asked about its own alone, which costs half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from roiflow.artefacts.trial import Look, Phase, Trial
from roiflow.data.served_features import SERVED
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.experiment.assignment import in_canary
from roiflow.features.table import Longs
from roiflow.params import CanaryParams
from roiflow.policy.candidate_sets import CandidateSets, stack
from roiflow.serving.chooser import CANARY, STABLE, ServedChooser
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.run import SlateChooser
from roiflow.simulator.tables import By
from roiflow.simulator.world import World


@dataclass(frozen=True)
class Weighed:
    """What a package expects of requests (B,), and how it would choose."""

    sets: CandidateSets  # (B, K); `ad` are rows of the world's catalogue
    logits: Floats  # (B, K)


@dataclass(frozen=True)
class Seen:
    """Requests (B,) that were just served, as both arms see them."""

    requests: WorldRequests
    users: Sequence[str]  # (B,) ids
    ad: Ints  # (B, S) what was shown, rows of the world's catalogue
    propensity: Floats  # (B, S) of the arm that served, given the ads above
    canary: Flags  # (B,)
    share: Floats  # (B,) of the users that the canary had
    stable: Weighed | None
    """None: the logging policy, which expects nothing."""
    challenger: Weighed


class Watch(Protocol):
    """Looks at a trial while it runs."""

    @property
    def looks(self) -> Sequence[Look]:
        """Those taken so far."""
        ...

    def awaits(self, now: int) -> bool:
        """Whether a look is to come after `now`, microseconds: only then `see` is called."""
        ...

    def see(self, seen: Seen) -> None:
        """What was just served."""
        ...

    def observe(self, tables: Tables) -> None:
        """What has just become known, of both arms."""
        ...

    def look(self, now: int) -> Phase | None:
        """At a full hour, before it is served: another share from now on, or None."""
        ...


def ramp(week: Week, params: CanaryParams) -> tuple[Phase, ...]:
    """A small share first, to stop harm and to recalibrate on; then the share that decides."""
    later = week.start + params.start_hours * MICROS_PER_HOUR
    return Phase(week.start, params.start_share, "start"), Phase(later, params.share, "ramp")


class TwoArms:
    """The simulator's SlateChooser: what serves today, and a challenger on trial beside it."""

    learns = True

    def __init__(
        self,
        stable: SlateChooser,
        canary: ServedChooser,
        world: World,
        trial: Trial,
        watch: Watch | None = None,
    ) -> None:
        """`trial` says how the week begins; without a watch its phases stay as they are."""
        self.policy_version = f"{stable.policy_version} and {canary.policy_version}"
        self._stable, self._canary, self._world = stable, canary, world
        self._trial, self._watch = trial, watch

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Rows of the world's catalogue (B, S) and propensities (B, S) of the arm that served."""
        size, slots = requests.number.size, self._world.slate_size
        ads, propensity = np.zeros((size, slots), np.int32), np.zeros((size, slots))
        if not size:
            return ads, propensity
        now = int(requests.event_time[0]) // MICROS_PER_HOUR * MICROS_PER_HOUR
        self._look(now)
        canary = self._in_canary(requests)
        watched = self._awaits(now)
        weighed: list[Weighed | None] = []
        for chooser, mine in ((self._stable, ~canary), (self._canary, canary)):
            rows = np.flatnonzero(mine)
            if watched and isinstance(chooser, ServedChooser):
                answer, whole = _weigh(chooser, requests, eligible, rows)
            else:
                answer, whole = chooser.choose(requests.take(rows), eligible, rng), None
            ads[rows], propensity[rows] = answer
            weighed.append(whole)
        stable, challenger = weighed
        if watched and self._watch and challenger:
            share = self._trial.share_at(requests.event_time)
            users = self._users(requests)
            self._watch.see(
                Seen(requests, users, ads, propensity, canary, share, stable, challenger)
            )
        return ads, propensity

    def by(self, requests: WorldRequests) -> By:
        """The arm of each request's user."""
        versions = (self._stable.policy_version, self._canary.policy_version)
        number = self._in_canary(requests).astype(np.int32)
        return By(tuple(zip((STABLE, CANARY), versions, strict=True)), number)

    def observe(self, tables: Tables) -> None:
        """What has become known of both arms' slates goes to both."""
        for chooser in (self._stable, self._canary):
            if chooser.learns:
                chooser.observe(tables)
        if self._watch:
            self._watch.observe(tables)

    @property
    def served(self) -> pa.Table:
        """What the packages' slates so far were made from; rows of served_features.SERVED."""
        each = [
            one.served for one in (self._stable, self._canary) if isinstance(one, ServedChooser)
        ]
        return pa.concat_tables([SERVED.empty_table(), *each])

    @property
    def trial(self) -> Trial:
        """As it was until now."""
        return replace(self._trial, looks=tuple(self._watch.looks) if self._watch else ())

    def _awaits(self, now: int) -> bool:
        # Who stopped or promoted has decided, and is asked nothing more.
        share = float(self._trial.share_at(np.array([now]))[0])
        return self._watch is not None and 0 < share < 1 and self._watch.awaits(now)

    def _look(self, now: int) -> None:
        phase = self._watch.look(now) if self._watch else None
        if phase is not None:
            # What was planned for later goes with it.
            before = tuple(one for one in self._trial.phases if one.since < phase.since)
            self._trial = replace(self._trial, phases=(*before, phase))

    def _users(self, requests: WorldRequests) -> list[str]:
        users: list[str] = self._world.user_ids[requests.user_index].tolist()
        return users

    def _in_canary(self, requests: WorldRequests) -> Flags:
        share = self._trial.share_at(requests.event_time)
        return in_canary(self._users(requests), self._trial.salt, share)


def _weigh(
    chooser: ServedChooser, requests: WorldRequests, eligible: Flags, rows: Longs
) -> tuple[tuple[Ints, Floats], Weighed]:
    """Slates and propensities of some rows, as `choose` answers, and what is expected of all."""
    first = int(requests.event_time[0])
    chooser.renew(first)
    shape = requests.number.size, chooser.slots
    ads, propensity = np.zeros(shape, np.int32), np.zeros(shape)
    places, sets, logits = [], [], []
    for at, found in chooser.consider(requests, eligible):
        mine = np.flatnonzero(np.isin(at, rows))
        if mine.size:
            ads[at[mine]], propensity[at[mine]] = chooser.fill(found, mine)
        world_row = chooser.world_rows(Week.of(first))
        ad = np.where(found.sets.ad >= 0, world_row[found.row], -1).astype(np.int32)
        places.append(at)
        sets.append(replace(found.sets, ad=ad))
        logits.append(found.logits)
    back = np.argsort(np.concatenate(places), kind="stable")
    weighed = Weighed(stack(sets).take(back), np.concatenate(logits)[back])
    return (ads[rows], propensity[rows]), weighed
