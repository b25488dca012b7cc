"""The command line. Commands import what they need, so that help is there at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roiflow.cli.check import check
from roiflow.cli.features import features
from roiflow.cli.simulate import simulate
from roiflow.cli.status import status
from roiflow.cli.stream import stream
from roiflow.cli.terminal import finished, here
from roiflow.entry import exit_on_expected
from roiflow.progress import progress

if TYPE_CHECKING:
    from rich.table import Table

    from roiflow.evaluation.leaderboard import Line, Score

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Raise the return on ad spend, week after week, and prove it.

Run it inside the repository. A first look: `roiflow demo`; `roiflow down` ends what it started.

`params.yaml` holds every number; the environment says where things are: `ROIFLOW_HOME` (default
`.roiflow`), `ROIFLOW_DATA_FOLDER` (files of kuairand, open_bandit, files), `ROIFLOW_SQL` (the URI
of the source sql's database), `ROIFLOW_REDIS_URL`, `ROIFLOW_KAFKA`, `ROIFLOW_MLFLOW_URI`.
""",
)

REPORT = "data/report/report.html"

Source = Annotated[str, typer.Option(help="simulator, complete_journey, kuairand, ...")]
Week = Annotated[str | None, typer.Option(help="ISO week, such as 2026-W04.")]


def main() -> None:
    """An expected failure is one line and exit code 1."""
    with exit_on_expected():
        app()


@app.command()
def demo(
    source: Source = "simulator",
    week: Week = None,
    further: Annotated[
        int, typer.Option(min=0, help="Simulator: weeks that the served policy produces itself.")
    ] = 2,
) -> None:
    """The whole loop on this machine, in minutes: data to served slates to a report.

    Airflow runs the DAG `weekly_training`: pull, validate, features, training, policy, evaluation,
    export, trial, screen, registration, promotion, Bento, deployment, drift and weekly report. In
    the simulated world what serves then produces further weeks itself. Without a week it is the
    newest that the source holds. The platform runs on, its pages show the runs; `roiflow down`
    ends it. A second run redoes no finished work.

        roiflow demo

        roiflow demo --source complete_journey
    """
    from roiflow.demo.main import demo as run_demo

    repository, settings, console = here()
    run_demo(repository, settings, source, week, further, console)


@app.command()
def up() -> None:
    """Leave the platform running: Airflow, MLflow and Evidently UIs, the service, Redis.

    A second call starts only what does not run. `roiflow down` ends it.
    """
    from roiflow.deployment import platform

    repository, settings, console = here()
    with progress("start") as show:
        platform.up(settings, repository, show)
    for name, place in {**platform.addresses(settings), "logs": settings.logs}.items():
        console.print(f"{name:<24} {place}", soft_wrap=True, highlight=False)


@app.command()
def down() -> None:
    """End exactly what `up`, `demo` or a deployment started from this home."""
    from roiflow.deployment import platform

    _, settings, console = here()
    ended = platform.down(settings)
    console.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


app.command()(status)
app.command()(check)
app.add_typer(simulate)
app.add_typer(features)
app.add_typer(stream)


@app.command()
def pull(
    source: Annotated[str, typer.Argument(help="A source of params.yaml.")],
    week: Annotated[str, typer.Argument(help="ISO week, such as 2017-W44.")],
    folder: Annotated[Path, typer.Argument(help="Where the tables go.")],
) -> None:
    """Write one week of a source as Parquet, as the source has it: nothing is validated.

    roiflow pull complete_journey 2017-W44 week
    """
    from rich.table import Table

    from roiflow.data import lake
    from roiflow.data.weeks import Week as IsoWeek
    from roiflow.params import parse_params
    from roiflow.stages.ingest import open_source
    from roiflow.weekly.values import PARAMS, with_run

    repository, settings, console = here()
    # Through the text of params.yaml, as a run has it: source and week are checked by the same
    # rules.
    text = with_run((repository / "params.yaml").read_text(), source, week)
    one = IsoWeek.parse(week)
    with console.status(f"{source} {week}"):
        # As known when the week ends: a pull of a single week has no window whose end would count.
        tables = open_source(parse_params(text, PARAMS).ingest, settings).pull(one, one.end)
        for name, table in tables.items():
            lake.write(folder, name, one, table)
    summary = Table("table", "rows", title=f"{source} {week} in {folder}")
    for name, table in tables.items():
        summary.add_row(name, f"{table.num_rows:,}")
    console.print(summary)


@app.command()
def report(source: Source = "simulator", week: Week = None) -> None:
    """Write a finished week's HTML report again and say where it is; without a week, the newest."""
    from roiflow.weekly.checkout import checkout_of
    from roiflow.weekly.choice import last_finished
    from roiflow.weekly.effects import effect
    from roiflow.weekly.run import perform

    _, settings, console = here()
    named = week or str(last_finished(settings.home, source))
    checkout = finished(checkout_of(settings.home, source, named))
    with console.status(f"report of {source} {named}"):
        # By the job with its declared arguments and the run's own code: a report is the same
        # whoever asks for it.
        perform(checkout, settings.home, effect("report"), lambda _: None)
    console.print(checkout / REPORT)


@app.command()
def prove(
    version: Annotated[int, typer.Argument(help="A registered version.")],
    source: Source = "simulator",
) -> None:
    """Take a version's decision again, from its commit and locked data; it must come out the same.

    roiflow prove 3
    """
    from roiflow.jobs.prove import prove as prove_decision

    repository, settings, console = here()
    with console.status(f"{source} version {version}") as status:
        known = prove_decision(repository, settings, source, version, status.update)
    console.print(
        f"{known.name} version {version}: {known.tags['verdict']} against champion "
        f"{known.tags['champion_then'][:12]}, proven: decision {known.tags['decision']}"
    )


@app.command()
def approve(
    version: Annotated[int, typer.Argument(help="A registered version that was not promoted.")],
    by: Annotated[str, typer.Option(help="Who answers for it.")],
    why: Annotated[str, typer.Option(help="The reason, kept with the decision.")],
    source: Source = "simulator",
) -> None:
    """Make a version the champion in your name, whatever was decided. The promotion log keeps it.

    roiflow approve 3 --by "Ada Lovelace" --why "holiday week, see the experiment"
    """
    from roiflow.artefacts.decision import Override
    from roiflow.jobs.approve import approve as approve_version

    _, settings, console = here()
    approve_version(settings, source, version, Override(by, why))
    console.print(f"{source} version {version} is champion, by {by}: {why}")


@app.command()
def recalibrate(source: Source = "simulator") -> None:
    """Renew click and conversion probabilities of what is deployed, from the slates it served.

    Two maps beside each deployed package, with a digest of their own: no new model, no restart.
    Slates are those that the stream's consumer put into the lake; positions and conversions that
    are still to come count as the newest finished run of the source says.

        roiflow recalibrate
    """
    from roiflow.weekly.checkout import checkout_of
    from roiflow.weekly.choice import last_finished
    from roiflow.weekly.places import LABELS
    from roiflow.weekly.run import job
    from roiflow.weekly.values import PARAMS

    _, settings, console = here()
    newest = last_finished(settings.home, source)
    checkout = finished(checkout_of(settings.home, source, str(newest)))
    arguments = [str(LABELS), str(PARAMS)]
    job(checkout, settings.home, "recalibrate", arguments, console.print)


@app.command()
def leaderboard(source: Source = "simulator", week: Week = None) -> None:
    """Train every ranker on one split of a week and compare their AUCs on its test week.

    Without a week it is the newest that the source holds.
    Intervals are over users; the lead is the leading ranker's, with an interval of its own.

        roiflow leaderboard --source kuairand
    """
    from roiflow.data.split import TEST
    from roiflow.demo.main import first_week
    from roiflow.evaluation.leaderboard import leaderboard as compare
    from roiflow.features import folder as feature_table
    from roiflow.labels.model import Labels
    from roiflow.labels.settled import settle
    from roiflow.params import load_params
    from roiflow.weekly.checkout import prepare
    from roiflow.weekly.places import FEATURES
    from roiflow.weekly.run import READERS, repro

    repository, settings, console = here()
    named = str(first_week(repository, settings, source, week))
    with progress("prepare") as show:
        # In the run's own checkout, so that features which the week's run has made are not made
        # again.
        checkout = prepare(repository, settings.home, source, named)
        for number, stage in enumerate((*READERS, "validate", "build_features", "fit_labels")):
            show(0.06 * number, stage)
            repro(checkout, settings.home, [stage], lambda _: None, sql=settings.sql)
        table = feature_table.read(checkout / FEATURES)
        labels, params = Labels.read(checkout / Labels.place), load_params(checkout / "params.yaml")
        lines = compare(table, labels, params, lambda done, what: show(0.3 + 0.7 * done, what))
        known = settle(labels, table, table.rows(TEST)).maturity
    told = "" if known is None else f", {known:.1%} of conversions known"
    console.print(_leaderboard_table(lines, f"{source} {named}{told}"))


def _leaderboard_table(lines: list["Line"], title: str) -> "Table":
    from rich.table import Table

    table = Table(title=title)
    for name in ("model", "click AUC", "lead over it", "conversion AUC", "lead over it", "CPU s"):
        table.add_column(name)
    # A week with one class of clicks has no AUC: those lines come last, in the order of training.
    for line in sorted(lines, key=lambda line: -(line.click.auc if line.click else 0.0)):
        cells = [cell for score in (line.click, line.conversion) for cell in _cells(score)]
        table.add_row(line.model, *cells, f"{line.train_seconds:.1f}")
    return table


def _cells(score: "Score | None") -> tuple[str, str]:
    if score is None:
        return "-", "-"
    return (
        f"{score.auc:.4f} ({score.low:.4f} to {score.high:.4f})",
        f"{score.lead:+.4f} ({score.lead_low:+.4f} to {score.lead_high:+.4f})",
    )


if __name__ == "__main__":
    main()
