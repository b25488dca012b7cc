"""Register the run's model package with its lineage, and publish the week's vocabulary."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import yaml

from roiflow.artefacts.decision import Check, Decision
from roiflow.artefacts.run import Lineage
from roiflow.errors import RegistryError
from roiflow.files import read_json, write_file
from roiflow.jobs.screen import NONE
from roiflow.registry import CHALLENGER, Evidence, Registry, flatten, model_name, read_digest
from roiflow.serving.package import MANIFEST
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run

HEAD = ("| check | value | interval | threshold | verdict |", "|---|---|---|---|---|")


def main(
    package: Path,
    features: Path,
    evaluation: Path,
    metrics: Annotated[Path, "folder of one JSON a stage (metrics)"],
    plots: Annotated[Path, "folder of one CSV a plot (plots)"],
    screen: Path,
    lineage: Path,
    params: Path,
    registered: Written,
) -> None:
    """Register once by digest; a challenger is what the screen did not refuse."""
    settings = Settings()
    made = Lineage.read(lineage)
    decision = Decision.read(screen)
    # Files of two attempts may lie in one checkout: a verdict on another package must not become
    # this one's tag.
    if decision.challenger != read_digest(package):
        raise RegistryError(
            f"{screen}: decides on {decision.challenger}, {package} is {read_digest(package)}"
        )
    registry = Registry(settings.registry_uri, settings.home)
    evidence = Evidence(
        # As text, since MLflow keeps parameters as text only; numbers that people compare go in as
        # metrics.
        params={key: str(value) for key, value in flatten(yaml.safe_load(params.read_text()))},
        metrics=dict(numbers(metrics)),
        files=(evaluation, plots, screen, lineage, params),
        description=describe(made, decision),
    )
    tags = {**asdict(made), **decision_tags(decision), "judged": judged_in(package)}
    version = registry.register(model_name(made.source), package, tags, evidence)
    # Refused for good, it is kept as evidence and stands for nothing.
    if decision.verdict != "fail":
        registry.set_alias(version, CHALLENGER)
    # After the registration: a week that is not registered must number nobody's ids.
    publish_vocabulary(features / "vocabulary.parquet", settings.lake, made)
    version.write(registered)


def judged_in(package: Path) -> str:
    """Digest of the package that was judged in the place of this one."""
    # As in `read_digest`, whatever else is in it: loading a package checks every file of it.
    return str(read_json(package / MANIFEST).get("judged") or NONE)


def decision_tags(decision: Decision) -> dict[str, str]:
    """What a version's tags say of its decision; enough to take it again."""
    tags = {
        "verdict": str(decision.verdict),
        "rule": str(decision.rule),
        "decision": decision.digest,
        "champion_then": decision.champion or NONE,
    }
    # The report itself stays in the run's checkout, which may be gone when the decision is taken
    # again: what it said goes along.
    if decision.parity is not None:
        tags["parity"] = json.dumps(asdict(decision.parity), sort_keys=True)
    if (signed := decision.override) is not None:
        tags |= {"override_who": signed.who, "override_why": signed.why}
    return tags


def numbers(metrics: Path) -> Iterator[tuple[str, float]]:
    """Every finite number of metrics/*.json as `stage.key`."""
    for path in sorted(metrics.glob("*.json")):
        for key, value in flatten(read_json(path), f"{path.stem}."):
            # No database keeps NaN or infinity as such: MLflow puts other numbers in their place.
            if isinstance(value, bool | int | float) and math.isfinite(value):
                yield key, float(value)


def describe(lineage: Lineage, decision: Decision) -> str:
    """The version's page, in Markdown."""
    lines = [
        f"**{lineage.source}, test week {lineage.week}** from commit `{lineage.commit[:12]}`",
        "",
        f"Screen: **{decision.verdict}**"
        + (f", {decision.reason}" if decision.reason else "")
        + (f" (rule: {decision.rule})" if decision.promote else ""),
        "",
        *HEAD,
    ]
    prove = f"Prove the decisions: `roiflow prove VERSION --source {lineage.source}`"
    return "\n".join([*lines, *map(row_of, decision.checks), "", prove])


def row_of(check: Check) -> str:
    """A check as a row of a Markdown table."""
    low, high = check.low, check.high
    interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
    return (
        f"| {check.name} | {_number(check.value)} | {interval} "
        f"| {_number(check.threshold)} | {check.verdict} |"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def publish_vocabulary(vocabulary: Path, lake: Path, lineage: Lineage) -> None:
    """Copy the week's vocabulary to where the next week's ingest finds it, atomically."""
    target = lake / lineage.source / "vocabulary" / f"week={lineage.week}.parquet"
    with write_file(target) as aside:
        shutil.copyfile(vocabulary, aside)


if __name__ == "__main__":
    run(main)
