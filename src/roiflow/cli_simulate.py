"""`roiflow simulate`: weeks of the ad world, its closed loop, and how like a real log it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from roiflow.terminal import finished, here, progress

if TYPE_CHECKING:
    from rich.console import Console

    from roiflow.data.weeks import Week as IsoWeek


class _WeeksByDefault(TyperGroup):
    """`simulate ...` is `simulate weeks ...`, and `simulate ... --loop` is `simulate loop ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
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

    Into a folder they are served by the world's logging policy; the same numbers in
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
        from roiflow.demo import WeekDone, serve_next_week
        from roiflow.run import checkout_of

        before = str(first.plus(-1))
        checkout = finished(checkout_of(settings.home, "simulator", before))
        with console.status(f"serve {week}") as status:
            serve_next_week(settings, WeekDone(before, {}, checkout), status.update)
        console.print(f"{week} is in {settings.lake / 'simulator'}")
        return
    if folder is None:
        raise typer.BadParameter("name a folder, or --served", param_hint="FOLDER")
    _write_world(repository, folder, [first.plus(number) for number in range(weeks)], console)


def _write_world(
    repository: Path, folder: Path, weeks: list["IsoWeek"], console: "Console"
) -> None:
    from roiflow.data import lake
    from roiflow.params import load_params
    from roiflow.simulator.planted import write_planted
    from roiflow.simulator.source import SimulatorSource

    params = load_params(repository / "params.yaml").ingest.simulator
    source = SimulatorSource(params, folder / ".served")
    with progress(console, "simulate") as show:
        for number, week in enumerate(weeks):
            show(number / len(weeks), str(week))
            for name, table in source.pull(week, week.end).items():
                lake.write(folder, name, week, table)
    write_planted(folder, source.world, weeks[-1])
    console.print(f"{weeks[0]} to {weeks[-1]} in {folder}")
