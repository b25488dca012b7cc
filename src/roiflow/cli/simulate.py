"""`roiflow simulate`: weeks of the ad world, its closed loop, and how like a real log it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from roiflow.cli.terminal import finished, here
from roiflow.data.weeks import MICROS_PER_WEEK
from roiflow.progress import progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from roiflow.calibration.fidelity_report import Section
    from roiflow.data.weeks import Week as IsoWeek
    from roiflow.settings import Settings


KNOWN_LOGS = "kuairand, kuairand_dense, trivago, online_ads, or a folder of weeks."


class _WeeksByDefault(TyperGroup):
    """`simulate ...` is `simulate weeks ...`, and `simulate ... --loop` is `simulate loop ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Before Typer reads the arguments: it would take the week for an unknown command.
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            command = "loop" if "--loop" in args else "weeks"
            args = [command, *(one for one in args if one != "--loop")]
        return super().parse_args(ctx, args)


simulate = typer.Typer(
    name="simulate",
    cls=_WeeksByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Weeks of the simulated ad world.

    roiflow simulate 2026-W01 world --weeks 4

    roiflow simulate --weeks 12 --loop

Without the name of a command it is `weeks`, and with `--loop` it is `loop`.
""",
)


@simulate.command("weeks")
def weeks_command(
    week: Annotated[str, typer.Argument(help="First week, such as 2026-W01.")],
    folder: Annotated[Path | None, typer.Argument(help="Where the tables go.")] = None,
    weeks: Annotated[int, typer.Option(min=1, help="How many weeks.")] = 1,
    served: Annotated[
        bool, typer.Option("--served", help="By the champion of the week before, into the lake.")
    ] = False,
) -> None:
    """Write weeks of the simulated ad world as Parquet.

    Into a folder they are served by the world's logging policy, on every core; the same numbers in
    `ingest.simulator` of params.yaml give the same bytes. With `--served`, one week is served by
    the policy that the run of the week before left as champion, and kept where the next run finds
    it.

        roiflow simulate 2026-W01 world --weeks 4

        roiflow simulate 2026-W05 --served
    """
    from roiflow.data.weeks import Week as IsoWeek

    repository, settings, console = here()
    first = IsoWeek.parse(week)
    if served:
        from roiflow.weekly.checkout import checkout_of
        from roiflow.weekly.serve import serve_week

        # `serve_week` leaves a week without a champion to the logging policy; whoever asks for a
        # served one wants to hear that there is no run.
        finished(checkout_of(settings.home, "simulator", str(first.plus(-1))))
        with console.status(f"serve {week}") as status:
            serve_week(settings.home, first, status.update)
        console.print(f"{week} is in {settings.lake / 'simulator'}")
        return
    if folder is None:
        raise typer.BadParameter("name a folder, or --served", param_hint="FOLDER")
    _write_world(repository, folder, [first.plus(number) for number in range(weeks)], console)


def _write_world(
    repository: Path, folder: Path, weeks: list["IsoWeek"], console: "Console"
) -> None:
    import os
    import time

    from roiflow.params import load_params
    from roiflow.simulator.planted import write_planted
    from roiflow.simulator.world import World
    from roiflow.simulator.write import write_weeks

    params = load_params(repository / "params.yaml").ingest.simulator
    started = time.perf_counter()
    with progress("simulate") as show:
        events = write_weeks(params, folder, weeks, len(os.sched_getaffinity(0)), show)
    seconds = time.perf_counter() - started
    write_planted(folder, World(params), weeks[-1])
    console.print(f"{weeks[0]} to {weeks[-1]} in {folder}: {events:,} events, {seconds:.1f} s")


@simulate.command("loop")
def loop_command(
    weeks: Annotated[int, typer.Option(min=2, help="Runs of the pipeline, one a week.")] = 12,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Of the world; may be given several times.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds at a time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of loop.png and loop.md; the loop's home if none.")
    ] = None,
) -> None:
    """Run the whole pipeline week after week; what each run makes is tried in the week after.

    Draws the way from random to the oracle by week and cumulative regret of what served, beside a
    frozen first champion, promoting always, LR, GBDT, popularity and the logging policy. A loop
    that was interrupted goes on where it was; weeks that are finished are not run again.

        roiflow simulate --loop --weeks 12

        roiflow simulate --loop --weeks 12 --seed 7 --seed 8 --seed 9 --jobs 2 --out docs
    """
    import os

    # A loop keeps a registry of its own: its champions serve simulated weeks only.
    # Out of this process's environment, because its stages and jobs, and the loops beside it,
    # inherit that.
    os.environ.pop("ROIFLOW_MLFLOW_URI", None)
    from roiflow.loop.report import comparable, ledger, table, write_report
    from roiflow.loop.weeks import open_loop, run_loop, run_loops

    repository, settings, console = here()
    # Without a seed it is the one of params.yaml, whichever that is.
    seeds: list[int] | list[None] = seed or [None]
    loops = [open_loop(repository, settings, one) for one in seeds]
    with progress("loop") as show:
        if len(loops) == 1:
            results = [run_loop(loops[0], weeks, show)]
        else:
            results = run_loops(loops, weeks, jobs, show)
    folder = out or (loops[0].home if len(loops) == 1 else loops[0].home.parent)
    write_report(results, folder)
    for one in results:
        console.print(ledger(one))
    console.print(table(comparable(results)))
    console.print(f"{folder / 'loop.png'}\n{folder / 'loop.md'}", soft_wrap=True, highlight=False)


@simulate.command("fidelity")
def fidelity_command(
    log: Annotated[list[str] | None, typer.Option(help=f"{KNOWN_LOGS} May be repeated.")] = None,
    after: Annotated[
        Path | None, typer.Option(help="The parameters that calibrate wrote, to compare with.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The report: .html, or .png for its plots.")] = Path(
        "fidelity.html"
    ),
) -> None:
    """Score how like real logs the world of params.yaml is; write a report with plots.

    Eight marginals, from users' activity to the tail of revenue: 0 is like, 1 is unlike. Public
    logs are read from `ROIFLOW_DATA_FOLDER`; without `--log` it is all of them.

        roiflow simulate fidelity --log trivago --log kuairand --out report.html
    """
    from roiflow.calibration.fidelity import compare, simulated_log
    from roiflow.calibration.fidelity_report import Section, write_report
    from roiflow.calibration.public_logs import LOGS, read_log
    from roiflow.params import load_params

    repository, settings, console = here()
    # The one of the repository is `before`, the one that calibrate wrote is `after`, on the same
    # logs.
    files = [repository / "params.yaml", *([after] if after else [])]
    worlds = [load_params(path).ingest.simulator for path in files]
    names = log or list(LOGS)
    sections = []
    with progress("fidelity") as show:
        for number, name in enumerate(names):
            show(number / len(names), name)
            real = read_log(name, _data_folder(settings))
            logs = [simulated_log(world, real.days, real.positions) for world in worlds]
            before, *rest = [compare(simulated, real) for simulated in logs]
            sections.append(Section(before, rest[0] if rest else None))
        write_report(out, sections)
    for section in sections:
        console.print(_distances(section))
    console.print(out, soft_wrap=True)


@simulate.command("truth")
def truth_command(
    week: Annotated[str, typer.Argument(help="A week of the world, such as 2017-W20.")],
    draws: Annotated[
        int, typer.Option(min=2, help="Of the slates, where a policy draws them.")
    ] = 8,
) -> None:
    """What policies that know the world are worth in a week, in expectation.

    Each drawn slate counts with its closed form; what is left to the draw has a standard error.
    Money is in units of the currency. What a served week was worth, `roiflow demo` and
    `roiflow simulate --loop` tell.

        roiflow simulate truth 2017-W20
    """
    from rich.table import Table

    from roiflow.data.weeks import Week as IsoWeek
    from roiflow.params import load_params
    from roiflow.simulator.policies import Greedy, Oracle, logging_policy, random_policy
    from roiflow.simulator.run import SlateChooser
    from roiflow.simulator.truth import expected_value_of
    from roiflow.simulator.world import World

    repository, _, console = here()
    one = IsoWeek.parse(week)
    world = World(load_params(repository / "params.yaml").ingest.simulator)
    policies: list[SlateChooser] = [
        random_policy(world), logging_policy(world), Greedy(world), Oracle(world)
    ]  # fmt: skip
    names = ("clicks", "conversions", "revenue", "cost", "value", "roi")
    table = Table("policy", *names, title=f"{week}, {world.params.scenario}")
    with progress(week) as show:
        for number, policy in enumerate(policies):
            show(number / len(policies), policy.policy_version)
            # The greedy ones decide alike in every draw, unless budgets run out by chance.
            # A standard error takes two.
            drawn = draws if policy.policy_version in ("random", "logging") else 2
            mean, error = expected_value_of(world, one, policy, drawn)
            cells = (_with_error(mean[name], error[name]) for name in names)
            table.add_row(policy.policy_version, *cells)
    console.print(table)


def _with_error(value: float, error: float) -> str:
    digits = 3 if abs(value) < 10 else 0
    return f"{value:,.{digits}f}" + (f" ± {error:,.{digits}f}" if error > 0 else "")


@simulate.command("fit")
def fit_command(
    weeks: Annotated[int, typer.Option(min=1, help="Of the panel, spread over its year.")] = 6,
) -> None:
    """How well the panel world's response model foresees real purchases it was not fitted on.

    Each week's model is fitted on the weeks before it alone; PCOC is predicted over observed.

        roiflow simulate fit --weeks 6
    """
    import numpy as np
    from rich.table import Table

    from roiflow.params import load_params
    from roiflow.simulator.panel import PanelPopulation

    repository, _, console = here()
    params = load_params(repository / "params.yaml").ingest.simulator
    table = Table("week", "pairs", "purchases", "AUC", "log loss", "of the base rate", "PCOC")
    with progress("fit") as show:
        population = PanelPopulation(params)
        first = population.first_week
        held = (population.last_week.start - first.start) // MICROS_PER_WEEK
        # Over the whole year: purchases of neighbouring weeks are alike, and a holiday is in few of
        # them.
        spread = np.linspace(0, held, weeks).round().astype(int).tolist()
        for number, week in enumerate(first.plus(step) for step in spread):
            show(number / weeks, str(week))
            fit = population.held_out_fit(week)
            numbers = (fit.auc, fit.log_loss, fit.base_log_loss, fit.pcoc)
            counts = (f"{fit.pairs:,}", f"{fit.purchases:,}")
            table.add_row(str(week), *counts, *(f"{value:.4f}" for value in numbers))
    console.print(table)


@simulate.command("calibrate")
def calibrate_command(
    log: Annotated[str, typer.Option(help=KNOWN_LOGS)],
    out: Annotated[Path, typer.Option(help="The parameters with what was fitted.")] = Path(
        "params-calibrated.yaml"
    ),
    users: Annotated[int, typer.Option(min=1, help="Of the worlds that are tried.")] = 5000,
    report: Annotated[
        Path | None, typer.Option(help="Before and after: .html, or .png for its plots.")
    ] = None,
) -> None:
    """Fit the synthetic world of params.yaml to a log; write the parameters to another file.

    A folder is one of weekly tables as `roiflow pull` and `roiflow simulate` write them. What the
    log does not tell of stays as it is.

        roiflow simulate calibrate --log kuairand --out params-calibrated.yaml
    """
    from roiflow.calibration.calibrate import calibrate
    from roiflow.calibration.fidelity_report import Section, write_report
    from roiflow.calibration.public_logs import read_log
    from roiflow.files import write_file
    from roiflow.params import load_params
    from roiflow.weekly.values import with_values

    repository, settings, console = here()
    params = repository / "params.yaml"
    world = load_params(params).ingest.simulator
    real = read_log(log, _data_folder(settings))
    with progress("calibrate") as show:
        done = calibrate(world, real, users, show)
    fitted = {f"ingest.simulator.{key}": value for key, value in done.values.items()}
    # Into the text, so that the file keeps its comments and can take the place of params.yaml.
    text = with_values(params.read_text(), {"ingest.simulator.world": "synthetic", **fitted})
    with write_file(out) as aside:
        aside.write_text(text)
    section = Section(done.before, done.after)
    if report is not None:
        write_report(report, [section])
    console.print(_distances(section))
    for key, value in fitted.items():
        console.print(f"{key}: {value:g}", highlight=False)
    console.print(out, soft_wrap=True)


def _distances(section: "Section") -> "Table":
    from rich.table import Table

    from roiflow.calibration.fidelity_report import TITLES

    both = [each for each in (section.before, section.after) if each]
    table = Table("distance from the log", *("before", "after")[: len(both)])
    table.title = section.before.log
    for name, title in TITLES.items():
        if name in section.before.distance:
            table.add_row(title, *(f"{each.distance[name]:.3f}" for each in both))
        else:
            table.add_row(title, section.before.lacks[name])
    table.add_section()
    table.add_row("overall", *(f"{each.overall:.3f}" for each in both))
    return table


def _data_folder(settings: "Settings") -> Path | None:
    from roiflow.data.sources.places import local_folder

    return local_folder(settings.data_folder) if settings.data_folder else None
