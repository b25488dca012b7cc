"""`roiflow features`: the declared features, and what was served replayed against the lake."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roiflow.cli.terminal import finished, here

if TYPE_CHECKING:
    from rich.table import Table

    from roiflow.artefacts.parity import Compared

features = typer.Typer(
    name="features",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
The features: what they are, and whether serving saw what training sees.

    roiflow features list

    roiflow features replay --week 2017-W21

    roiflow features spark --week 2017-W21 features-2017-W21

    roiflow features ablate
""",
)

USED = "pre-selection, ranker, policy"
"""All dense features go the same way."""


@features.command("list")
def list_command() -> None:
    """Every dense feature: meaning, rows, window, default, unit, owner, use."""
    from rich.table import Table

    from roiflow.features.spec import SPECS, WINDOWS

    _, _, console = here()
    owners = ", ".join(sorted({spec.owner for spec in SPECS}))
    table = Table(title=f"{len(SPECS)} dense features, {SPECS[0].type}")
    table.caption = f"Owner: {owners}. Used in: {USED}."
    table.add_column("feature", no_wrap=True)
    for name in ("meaning", "rows", "window", "default", "unit"):
        table.add_column(name, no_wrap=name == "window")
    for spec in SPECS:
        window = WINDOWS[spec.window_days] if spec.window_days else "-"
        table.add_row(spec.name, spec.meaning, spec.rows, window, spec.default, spec.unit)
    console.print(table)


@features.command("replay")
def replay_command(
    week: Annotated[str, typer.Option(help="A served week with a finished run: 2017-W21.")],
    source: Annotated[str, typer.Option(help="simulator, stream, ...")] = "simulator",
) -> None:
    """Compute again what serving was given in a week, and say where it differs.

    roiflow features replay --week 2017-W21
    """
    from roiflow.artefacts.parity import ParityReport
    from roiflow.weekly.checkout import checkout_of
    from roiflow.weekly.effects import effect
    from roiflow.weekly.run import perform

    _, settings, console = here()
    checkout = finished(checkout_of(settings.home, source, week))
    with console.status(f"replay of {source} {week}"):
        # As the run did it, with the report in its place, where whatever repeats the week's report
        # reads it.
        perform(checkout, settings.home, effect("check_parity"), lambda _: None)
    report = ParityReport.of(checkout)
    for one in report.compared:
        console.print(package_table(one))
        # Empty where all is equal, and where slates differ but none of them was kept whole.
        if one.features:
            console.print(features_table(one))
    console.print(report.line, highlight=False)
    console.print(checkout / ParityReport.place, soft_wrap=True, highlight=False)


@features.command("spark")
def spark_command(
    week: Annotated[str, typer.Option(help="A week with a finished run: 2017-W21.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the Parquet files.")],
    source: Annotated[str, typer.Option(help="simulator, complete_journey, ...")] = "simulator",
) -> None:
    """Compute a run's features on Apache Spark: a row per impression, equal to the engine's.

    `ROIFLOW_SPARK` names a cluster; the default is every core of this machine.

        roiflow features spark --week 2017-W21 features-2017-W21
    """
    from roiflow.features.engine import PLAN
    from roiflow.features.plan import Plan
    from roiflow.features.rows import Window
    from roiflow.features.vocabulary import Vocabulary
    from roiflow.offline.build import VOCABULARY
    from roiflow.spark.engine import features as on_spark
    from roiflow.spark.engine import spark_session
    from roiflow.weekly.checkout import checkout_of
    from roiflow.weekly.places import FEATURES, VALIDATED

    _, settings, console = here()
    checkout = finished(checkout_of(settings.home, source, week))
    window = Window(checkout / VALIDATED)
    plan = Plan.read(checkout / FEATURES / PLAN)
    vocabulary = Vocabulary.read(checkout / FEATURES / VOCABULARY)
    with console.status(f"{source} {week} on {settings.spark}"):
        session = spark_session(settings.spark)
        try:
            table = on_spark(session, window.folder, window.weeks, plan, vocabulary)
            table.write.parquet(str(out.absolute()))
        finally:
            session.stop()
    console.print(out.absolute(), soft_wrap=True, highlight=False)


@features.command("ablate")
def ablate_command(
    seeds: Annotated[
        int, typer.Option(min=1, help="Worlds: params.yaml's seed and those after.")
    ] = 3,
    week: Annotated[str, typer.Option(help="A week with a finished run, of a real source.")] = "",
    source: Annotated[str, typer.Option(help="complete_journey, files, ...")] = "simulator",
) -> None:
    """What each feature and group adds, by models without it; marks what may know the outcome.

    In the simulated world by the true value of the greedy policy, over several seeds; the table
    goes into docs/features.md, and what was cut off goes on where it was. Of a real source's week,
    where no truth is known, by AUC and log loss alone.

        roiflow features ablate --seeds 3

        roiflow features ablate --source complete_journey --week 2017-W21
    """
    from roiflow.errors import ParamsError
    from roiflow.loop.ablation_report import table, write_report
    from roiflow.loop.ablations import ablate_run, ablate_seed
    from roiflow.params import load_params
    from roiflow.progress import progress
    from roiflow.weekly.checkout import checkout_of

    repository, settings, console = here()
    params = load_params(repository / "params.yaml")
    gain = params.ablate.suspicious_auc_gain
    if source != "simulator" and not week:
        raise ParamsError(f"--week is missing: which run of {source} is meant")
    with progress("ablate") as show:
        if week:
            found = [ablate_run(finished(checkout_of(settings.home, source, week)), params, show)]
        else:
            found = []
            for number in range(seeds):

                def part(done: float, what: str, at: int = number) -> None:
                    show((at + done) / seeds, what)

                seed = params.ingest.simulator.seed + number
                found.append(ablate_seed(settings.home / "ablation", params, seed, part))
    console.print(table(found, gain))
    if not week:
        write_report(found, gain, repository / "docs")
        console.print(repository / "docs" / "features.md", soft_wrap=True, highlight=False)


COUNTS = {
    "compared": "slates compared",
    "different": "that differ",
    "sampled": "kept whole",
    "not_final": "with open item counters",
    "ahead": "whose store was ahead of the request",
    "degraded": "degraded",
    "not_kept": "not kept",
}


def package_table(one: "Compared") -> "Table":
    """Slates of one package, and the fault that explains what differs."""
    from rich.table import Table

    table = Table(title=f"Slates served by {one.policy_version}", show_header=False)
    for name, words in COUNTS.items():
        table.add_row(words, f"{getattr(one, name):,}")
    table.add_row("stale: training sees otherwise", f"{100 * one.stale_share:.2f} %")
    if fault := one.fault:
        size = f": {fault.size}, explains {100 * fault.explains:.0f} %" if fault.size else ""
        table.add_row("fault", f"{fault.name}{size}")
    return table


def features_table(one: "Compared") -> "Table":
    """Features that differ, each with its largest difference."""
    from rich.table import Table

    table = Table(title="Features that differ, of the slates kept whole")
    for name in ("feature", "slates", "rows", "largest", "request", "ad", "served", "recomputed"):
        table.add_column(name, justify="left" if name in {"feature", "request", "ad"} else "right")
    for feature in one.features:
        # The largest difference is the first: from it a feature's fault is told soonest.
        worst = feature.examples[0]
        table.add_row(
            feature.feature,
            f"{feature.slates:,}",
            f"{feature.rows:,}",
            number(feature.largest),
            worst.request_id,
            worst.ad_id or "-",
            number(worst.served),
            number(worst.expected),
        )
    return table


def number(value: float | str) -> str:
    """Six digits; what is no number stays as it is."""
    return value if isinstance(value, str) else f"{value:.6g}"
