"""Take a registered version's decisions again from what is locked; they must come out the same.

The screen's, by the commit that made the version, and that of each week in which it was on trial,
by the commit of the run that decided then.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roiflow.artefacts.decision import Decision, TrialDecision, Tried
from roiflow.artefacts.run import Registered
from roiflow.errors import GateError
from roiflow.jobs.screen import digest_of
from roiflow.registry import Registry, model_name, read_digest, tried_of
from roiflow.settings import Settings
from roiflow.stages.command import run
from roiflow.weekly.checkout import recreate, remove
from roiflow.weekly.effects import effect
from roiflow.weekly.run import Show, fetch, job

CODE = Path(__file__).parents[3]


def main(source: str, version: int) -> None:
    """Prove one version's decisions and print the digest of its screen."""
    print(prove(Path.cwd(), Settings(), source, version, print).tags["decision"])


def prove(
    repository: Path, settings: Settings, source: str, version: int, show: Callable[[str], None]
) -> Registered:
    """The version, if code, data and parameters give the decisions that it is tagged with.

    Works in a checkout of its own, which is removed. Raises RunError where a commit or its data
    are gone, GateError where the package or a decision comes out different.
    """
    registry = Registry(settings.registry_uri, settings.home)
    known = registry.get(model_name(source), version)
    proof = Proof(repository, settings.home, f"{source}-{version}", show)
    with proof.of(known.tags["commit"]) as folder:
        proof.screen(folder, known)
    for tried in tried_of(known):
        with proof.of(tried.commit) as folder:
            proof.trial(folder, known, tried)
    return known


@dataclass(frozen=True)
class Proof:
    """Where a version's decisions are taken again."""

    repository: Path
    home: Path
    name: str
    show: Show

    @contextmanager
    def of(self, commit: str) -> Iterator[Path]:
        """A checkout of a run's commit."""
        # Not the run's own checkout, in which somebody may be at work, and which may be gone.
        folder = self.home.absolute() / "proofs" / self.name
        recreate(self.repository, folder, commit)
        try:
            yield folder
        finally:
            remove(self.repository, folder)

    def screen(self, folder: Path, known: Registered) -> None:
        """Whether the package is there, and its screen decides as it did.

        The week's trial is decided first: the screen reads what that leaves.
        """
        canary, screen = arguments(folder, "canary"), arguments(folder, "screen")
        # What the stages made. The parity report is not theirs: what it said is a tag.
        stages = ("package", "features", "labels", "evaluation", "agreement")
        made = [str(path) for name, path in screen.items() if name in stages]
        fetch(folder, self.home, [str(canary["validated"]), *made], self.show)
        if (found := read_digest(folder / screen["package"])) != known.digest:
            raise GateError(
                f"{known.name} version {known.version}: commit {known.tags['commit']} holds "
                f"package {found}, registered was {known.digest}"
            )
        for name, given in (("canary", canary), ("screen", screen)):
            job(folder, self.home, name, list(map(str, given.values())), self.show)
        self._same(known, digest_of(folder / Decision.place), known.tags["decision"])

    def trial(self, folder: Path, known: Registered, tried: Tried) -> None:
        """Whether the trial of one week decides as it did."""
        canary = arguments(folder, "canary")
        made = [str(canary[name]) for name in ("validated", "features", "labels")]
        fetch(folder, self.home, made, self.show)
        job(folder, self.home, "canary", list(map(str, canary.values())), self.show)
        found = TrialDecision.of(folder).digest
        self._same(known, found, tried.decision.digest, f" on its trial in {tried.decision.week}")

    def _same(self, known: Registered, again: str | None, kept: str, which: str = "") -> None:
        if again != kept:
            raise GateError(
                f"{known.name} version {known.version}: the decision{which} came out as {again}, "
                f"registered was {kept}"
            )


def arguments(checkout: Path, name: str) -> dict[str, Path]:
    """What the job of a checkout is called with: its own arguments, each with its path of today."""
    _, *paths = effect(name).command.split()
    today = dict(zip(parameters(CODE, name), map(Path, paths), strict=True))
    return {one: today[one] for one in parameters(checkout, name)}


def parameters(checkout: Path, name: str) -> list[str]:
    """What a job's `main` takes in the code of a checkout.

    A version is proven by the code of its commit, whose job may have taken fewer arguments.
    """
    code = ast.parse((checkout / "src/roiflow/jobs" / f"{name}.py").read_text())
    # Parsed and not imported: this process has the modules of now under the same names.
    (main,) = (one for one in code.body if isinstance(one, ast.FunctionDef) and one.name == "main")
    return [one.arg for one in main.args.args]


if __name__ == "__main__":
    run(main)
