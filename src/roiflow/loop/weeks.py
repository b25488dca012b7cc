"""The closed loop of the simulated world: the whole pipeline, then two arms serve, every week.

A week is one run of the stages of dvc.yaml and of the effects that promotion needs; the champion
and, beside it, the challenger that the run made then fill the next week's slates, whose log is what
the next run learns from and decides by. Building, deploying and reporting, which change nothing of
that, are left out.

A week's truths compare like with like: what was on trial in week W came out of the run of week
W - 1, and so did the baselines, from the same rows. Their features are as known in W.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.run import Lineage, Promoted
from roiflow.data.weeks import Week
from roiflow.errors import RunError
from roiflow.labels.model import Labels
from roiflow.loop.result import LOGGING, LoopResult, Outcome, WeekOutcome
from roiflow.loop.served_clicks import served_clicks
from roiflow.loop.worth import SOURCE, RunWeek, worth
from roiflow.params import Params, load_params, parse_params
from roiflow.registry import flatten
from roiflow.settings import Settings
from roiflow.simulator.world import World
from roiflow.warm.process import warm
from roiflow.weekly.checkout import checkout_of, prepare
from roiflow.weekly.effects import DECIDES, EFFECTS
from roiflow.weekly.reasons import reason
from roiflow.weekly.run import perform, repro
from roiflow.weekly.serve import serve_week
from roiflow.weekly.steps import needed, read_stages
from roiflow.weekly.values import PARAMS, with_values

RESULT = "loop.json"
STEPS = 20
"""Things done in a week, about."""

TOLD_EVERY = 5.0
"""Seconds between two words on how far several loops are."""

WARMING = 60.0
"""Seconds that are waited for the warm process, which a week of cold stages costs in CPU."""

_RUNNING = re.compile(r"Running stage '(\w+)'")

Progress = Callable[[float, str], None]
"""Told the done fraction and what is being done."""


@dataclass(frozen=True)
class Loop:
    """One loop: a seed, its own home, and what its runs have in params.yaml."""

    repository: Path
    settings: Settings
    """Of its own home."""
    seed: int
    params: Params
    """With the values."""
    values: Mapping[str, str | float]
    """What the runs have at keys of params.yaml instead: those of its section `loop`, the seed."""

    @property
    def home(self) -> Path:
        """Lake, registry, checkouts and result of this loop alone."""
        return self.settings.home.absolute()

    @property
    def result(self) -> Path:
        """Where the weeks so far are kept."""
        return self.home / RESULT

    @property
    def log(self) -> Path:
        """What the loop's process said."""
        return self.home / "loop.log"

    @property
    def digest(self) -> str:
        """Of the parameters that every week shares; 16 hex digits."""
        return hashlib.sha256(self.params.model_dump_json().encode()).hexdigest()[:16]

    def checkout(self, week: Week) -> Path:
        """The checkout of one week's run."""
        return checkout_of(self.home, SOURCE, str(week))


def open_loop(repository: Path, settings: Settings, seed: int | None) -> Loop:
    """The loop of a seed, params.yaml's own where none is given.

    Raises ParamsError, naming key and value, where params.yaml is wrong.
    """
    own = load_params(repository / PARAMS)
    seed = own.ingest.simulator.seed if seed is None else seed
    values = {**dict(flatten(own.loop.model_dump())), "ingest.simulator.seed": seed}
    # By the same text that its runs will get, so that the digest covers what they really train
    # with.
    text = with_values((repository / PARAMS).read_text(), values)
    home = settings.home.absolute() / "loop" / f"seed-{seed}"
    # A home and a registry of its own: the champion of a simulated world must not be the one that a
    # real source's week is judged against.
    places = settings.model_copy(update={"home": home, "mlflow_uri": None})
    return Loop(repository, places, seed, parse_params(text, PARAMS), values)


def run_loop(loop: Loop, weeks: int, show: Progress) -> LoopResult:
    """Run `weeks` weeks and keep each one's outcome; weeks that are finished are not run again.

    Raises RunError where the world ends before, or where the result that is there was made with
    other parameters, and whatever a stage or a job fails with.
    """
    result, names = resume(loop), weeks_of(loop.params, weeks)
    todo = range(len(result.weeks), weeks)
    # A loop whose weeks are all there starts nothing, which `run_loops` relies on when it reads the
    # results.
    # One world for all: much of what it fits for a week serves the next one, too.
    world = World(loop.params.ingest.simulator)
    # Waited for: the first run's stages are all started by one DVC, whose `python` is theirs.
    with warm(loop.home, WARMING) if todo else nullcontext():
        for number in todo:
            watch = Stopwatch(show, number, weeks, str(names[number]))
            outcome = run_week(loop, names[number], result.weeks, world, watch)
            result = replace(result, weeks=(*result.weeks, outcome))
            # After every week: what is written is what a loop that was cut off goes on from.
            result.write(loop.result)
    return replace(result, weeks=result.weeks[:weeks])


def run_loops(loops: Sequence[Loop], weeks: int, jobs: int, show: Progress) -> list[LoopResult]:
    """Several loops, `jobs` at a time, each in a process of its own with its own log.

    Raises RunError where one cannot be resumed, before any runs, and with a failed one's own last
    error line after the others have run on to their end.
    """
    # Before anything is started: hours later, that one loop's parameters have changed would be a
    # late thing to hear.
    for one in loops:
        resume(one)
    started: list[subprocess.Popen[bytes]] = []

    def to_its_end(one: Loop) -> str:
        """Why it failed; empty where it did not."""
        # Kept where the block below finds it: a thread that waits cannot be interrupted, its
        # process can be ended.
        started.append(process := _start(one, weeks, alone=jobs == 1))
        if not process.wait():
            return ""
        why = reason(one.log.read_text().splitlines()[-60:], process.returncode)
        return f"seed {one.seed}: {why} (log: {one.log})"

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(to_its_end, one) for one in loops}
        failed: list[str] = []
        try:
            while running:
                # Woken by the end of a loop; between two, to say how many weeks there are by now.
                ended, running = wait(running, TOLD_EVERY, FIRST_COMPLETED)
                failed += [why for one in ended if (why := one.result())]
                done = [min(weeks, len(resume(one).weeks)) for one in loops]
                told = " + ".join(map(str, done))
                show(sum(done) / (weeks * len(loops)), f"weeks done: {told}")
        finally:
            # Loops that have not begun are dropped before those that run are ended, or each end
            # would let the next one begin.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.terminate()
    if failed:
        raise RunError("; ".join(failed))
    return [run_loop(one, weeks, lambda _done, _what: None) for one in loops]


def _start(loop: Loop, weeks: int, *, alone: bool) -> "subprocess.Popen[bytes]":
    arguments = ["simulate", "loop", "--weeks", str(weeks), "--seed", str(loop.seed)]
    # Side by side each has a thread: with all cores each, they would wait for one another. Alone it
    # keeps them.
    threads = {} if alone else {"OMP_NUM_THREADS": "1"}
    # The process opens its loop from the seed, so it is told the home that holds loop/seed-N.
    home = {"ROIFLOW_HOME": str(loop.home.parents[1])}
    loop.home.mkdir(parents=True, exist_ok=True)
    with loop.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "roiflow.cli.main", *arguments],
            cwd=loop.repository,
            env={**os.environ, **threads, **home},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def resume(loop: Loop) -> LoopResult:
    """The weeks that are there. Raises RunError where they were made with other parameters."""
    if not loop.result.exists():
        return LoopResult(loop.seed, loop.digest, ())
    found = LoopResult.read(loop.result)
    if found.params != loop.digest:
        raise RunError(
            f"{loop.result}: made with parameters {found.params}, params.yaml now gives "
            f"{loop.digest}: move {loop.home} away to start over"
        )
    return found


def weeks_of(params: Params, count: int) -> list[Week]:
    """The first `count` weeks that end a whole window: those before them are only logged.

    Raises RunError where the world does not go on for so long.
    """
    world = World(params.ingest.simulator)
    # Testing a week takes a whole window that ends with it.
    first = world.first_week.plus(params.ingest.simulator.weeks - 1)
    weeks, last = [first.plus(number) for number in range(count)], world.population.last_week
    if last is not None and weeks[-1] > last:
        raise RunError(f"{count} weeks from {first} on: the world ends with {last}")
    return weeks


class Stopwatch:
    """Says what is being done in a week and counts the seconds that it takes."""

    def __init__(self, show: Progress, number: int, weeks: int, week: str) -> None:
        self.seconds: dict[str, float] = {}
        self._show, self._number, self._weeks, self._week = show, number, weeks, week
        self._what, self._since = "", time.monotonic()

    def start(self, what: str) -> None:
        """What was being done ends, `what` begins."""
        self.stop()
        self._what = what
        done = self._number + min(1.0, len(self.seconds) / STEPS)
        self._show(done / self._weeks, f"{self._week}: {what}")

    def stop(self) -> None:
        """Nothing is being done."""
        now = time.monotonic()
        if self._what:
            # Added: DVC that is begun again, because its locks were held, names a stage once more.
            spent = self.seconds.get(self._what, 0.0) + now - self._since
            self.seconds[self._what] = round(spent, 2)
        self._what, self._since = "", now


def run_week(
    loop: Loop, week: Week, earlier: Sequence[WeekOutcome], world: World, watch: Stopwatch
) -> WeekOutcome:
    """Run the pipeline on a week, which what the week before left in charge has served.

    What is finished of an interrupted week is not done again. The first week, and any week that
    nothing of ours serves, is the logging policy's.
    """
    before = loop.checkout(week.plus(-1)) if earlier else None
    # First of all: where the run before is gone, the week would else be taken for a logged one.
    stable = stable_of(before)
    # Before the checkout is made: the week has to be in the lake by the time its run pulls it.
    if before is not None:
        watch.start("serve")
        serve_week(loop.home, week, lambda _: None)
    watch.start("prepare")
    checkout = prepare(loop.repository, loop.home, SOURCE, str(week), values=loop.values)

    def started(line: str) -> None:
        if match := _RUNNING.match(line):
            watch.start(match[1])

    watch.start("dvc")
    repro(checkout, loop.home, [one.name for one in read_stages(checkout / "dvc.yaml")], started)
    for effect in needed(EFFECTS, DECIDES):
        watch.start(effect.name)
        perform(checkout, loop.home, effect, lambda _: None)
    watch.start("truth")
    champions = [one.gate.champion for one in earlier if one.gate.champion]
    truth = worth(RunWeek(checkout, world), before, next(iter(champions), None), loop.settings)
    clicks = None
    if before is not None:
        # By the labels that serving itself had, as recalibration does.
        labels = Labels.read(before / Labels.place)
        bins = loop.params.evaluate.calibration_bins
        clicks = served_clicks(loop.settings.lake, SOURCE, week, labels, bins)
    watch.stop()
    return WeekOutcome(
        week=str(week),
        served_by=stable,
        truth=truth,
        clicks=clicks,
        trial=TrialDecision.of(checkout),
        gate=outcome_of(checkout),
        seconds=watch.seconds,
    )


def stable_of(before: Path | None) -> str:
    """Policy version of what the run before left as champion, or the logging policy's."""
    champion = Promoted.of(before).champion if before is not None else None
    return champion[:12] if champion else LOGGING


def outcome_of(checkout: Path) -> Outcome:
    """What a week's run came to: verdict, rule, who is champion then and who is tried next.

    Raises ArtefactError, naming the file, where the run is not there or did not end.
    """
    promoted = Promoted.of(checkout)
    return Outcome(
        verdict=Decision.of(checkout).verdict,
        version=promoted.version,
        promoted=promoted.promoted,
        champion=promoted.champion,
        challenger=promoted.challenger,
        rule=promoted.rule,
        reason=promoted.reason,
        commit=Lineage.of(checkout).commit,
    )
