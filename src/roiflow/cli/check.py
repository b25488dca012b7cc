"""`roiflow check`: somebody's own data, read as a run reads it, and what can be said about it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roiflow.cli.terminal import here

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from roiflow.data.sources.protocol import Source
    from roiflow.data.weeks import Week
    from roiflow.own_data.facts import Facts, OwnData, Part, Span
    from roiflow.own_data.prospects import Prospect
    from roiflow.params import Params
    from roiflow.settings import Settings

TEMPLATE_ENDS = "2026-W04"
"""Last week of the example's window."""

_COLOURS = {"yes": "green", "doubtful": "yellow", "no": "red"}


def check(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[FOLDER|URI]",
            help="A folder, s3://bucket/folder, or a database: better in ROIFLOW_SQL, where no "
            "other user of the machine sees its password. Default: ROIFLOW_DATA_FOLDER, else "
            "ROIFLOW_SQL.",
        ),
    ] = None,
    week: Annotated[
        str | None, typer.Option(help="ISO week to test on; default: the newest that is held.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="Write a small valid example to this new folder instead.")
    ] = None,
) -> None:
    """Look at your own data before a run: nothing is written.

    Reads the weeks that a run of `--week` would read, checks every row by the data contract, and
    says what is wrong, where, and what would be right; then what a run will and will not be able
    to say about this data. Exit code 1 where a run would stop.

        roiflow check --template example && roiflow check example
    """
    if template is not None:
        _write_template(template)
        return
    repository, settings, console = here()
    from roiflow.params import load_params

    params = load_params(repository / "params.yaml")
    name, source = _open(where, params, settings)
    if not _look(name, source, week, params, console):
        # As a failed run, so that a script that checks first stops here.
        raise typer.Exit(1)


def _write_template(folder: Path) -> None:
    from roiflow.data.weeks import Week
    from roiflow.own_data.template import write_template
    from roiflow.params import load_params

    repository, _, console = here()
    # As long as the window that a run of it would ask for.
    length = load_params(repository / "params.yaml").ingest.files.weeks
    for path in write_template(folder, Week.parse(TEMPLATE_ENDS).window(length)):
        console.print(str(path), soft_wrap=True, highlight=False)
    console.print(f"look at it: roiflow check {folder}", soft_wrap=True, highlight=False)


def _open(where: str | None, params: "Params", settings: "Settings") -> "tuple[str, OwnData]":
    """The source's name and the source, as `ingest` opens it.

    Raises SourceError where neither argument nor environment says where the data is.
    """
    from typing import cast

    from pydantic import SecretStr

    from roiflow.data.sources.sql_address import DIALECTS
    from roiflow.errors import SourceError
    from roiflow.stages.ingest import open_source

    if where is None and settings.data_folder is None and settings.sql is None:
        raise SourceError(
            "name a folder or a database: roiflow check FOLDER, or set ROIFLOW_DATA_FOLDER or "
            "ROIFLOW_SQL; roiflow check --template NEW_FOLDER writes an example"
        )
    update: dict[str, object] = {}
    # By what stands before ://, since s3://bucket is a folder and postgresql://host a database.
    database = where is not None and where.partition("://")[0] in DIALECTS
    if where is not None:
        update = {"sql": SecretStr(where)} if database else {"data_folder": where}
    name = "sql" if database or (where is None and settings.data_folder is None) else "files"
    # The same door as a run's, so that what is found here is what `ingest` would find.
    config = params.ingest.model_copy(update={"source": name})
    source: Source = open_source(config, settings.model_copy(update=update))
    return name, cast("OwnData", source)


def _look(
    name: str, source: "OwnData", asked: str | None, params: "Params", console: "Console"
) -> bool:
    """Print everything; whether a run would go on."""
    from roiflow.data.schemas import SCHEMAS
    from roiflow.data.weeks import Week
    from roiflow.own_data.facts import Looked, look, window_there
    from roiflow.own_data.prospects import hindrances, prospects

    length = params.ingest.model_copy(update={"source": name}).weeks
    with console.status("what is there"):
        # By table first: a week that one table lacks is in no list of whole weeks, and would only
        # be missing without a word.
        held, whole = {name: source.held(name) for name in SCHEMAS}, source.weeks()
    console.print(_held(held))
    week = Week.parse(asked) if asked else whole[-1] if whole else None
    there = window_there(week, whole, length) if week else []
    # Without the week itself there is nothing to test on; where only earlier ones lack, the rest is
    # looked at all the same.
    if not there:
        console.print(_no_week(week), style="red", soft_wrap=True, highlight=False)
        return False
    with console.status(f"{there[0]} to {week}"):
        facts = look(Looked(source, there[-1].end), there, params.validate_)
    aside = [_aside(facts)] if facts.aside else []
    for table in (_rows(facts), *aside, _times(facts), _joins(facts), _days(facts)):
        console.print(table)
    console.print(_answers(prospects(facts, params)))
    stops = hindrances(facts, name, len(there), length, params)
    for stop in stops:
        console.print(f"a run would stop: {stop}", style="red", soft_wrap=True, highlight=False)
    if not stops:
        console.print(_next_step(name, facts.week), soft_wrap=True, highlight=False)
    return not stops


def _no_week(week: "Week | None") -> str:
    which = f"{week} is not there as a whole" if week else "there is no whole week"
    return (
        f"{which}: a week needs impressions, behaviours and conversions of its own (a table may be "
        "without rows), and ads and users, whole snapshots, of the week or an earlier one; and it "
        "has to have ended; "
        "roiflow check --template NEW_FOLDER writes an example"
    )


def _next_step(name: str, week: "Week") -> str:
    variable = "ROIFLOW_SQL" if name == "sql" else "ROIFLOW_DATA_FOLDER"
    return f"a run would go on: make demo SOURCE={name} WEEK={week}, with {variable} set"


def _table(title: str, *columns: str, numbers: Iterable[int] = ()) -> "Table":
    from rich.table import Table

    right = set(numbers)
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        justify = "right" if place in right else "left"
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _held(held: "dict[str, list[Week]]") -> "Table":
    table = _table("weeks held", "table", "weeks", "first", "last", "missing", numbers=[1])
    every = sorted({week for weeks in held.values() for week in weeks})
    for name, weeks in held.items():
        lacking = [str(week) for week in every if week not in weeks]
        ends = (str(weeks[0]), str(weeks[-1])) if weeks else ("", "")
        table.add_row(name, f"{len(weeks)}", *ends, ", ".join(lacking))
    return table


def _rows(facts: "Facts") -> "Table":
    weeks = sorted({part.week for part in facts.parts})
    numbers = range(1, len(weeks) + 1)
    table = _table("rows by week", "table", *map(str, weeks), "share set aside", numbers=numbers)
    for name, parts in _by_table(facts).items():
        cells = [f"{part.rows:,}" for part in parts]
        bad, every = (sum(part.bad for part in parts), sum(part.rows for part in parts))
        over = ", ".join(str(part.week) for part in parts if part.refused)
        share = f"{bad:,} ({bad / every:.2%})" if bad else "0"
        table.add_row(name, *cells, f"[red]{share}: too many in {over}" if over else share)
    return table


def _times(facts: "Facts") -> "Table":
    title = f"first and last times of {facts.week}, UTC"
    table = _table(title, "table", "event_time", "", "known_time", "")
    for name, parts in _by_table(facts).items():
        event, known = parts[-1].spans
        table.add_row(name, *_ends(event), *_ends(known))
    return table


def _by_table(facts: "Facts") -> "dict[str, list[Part]]":
    """The partitions of each table, oldest week first."""
    ordered = sorted(facts.parts, key=lambda part: part.week)
    names = dict.fromkeys(part.table for part in facts.parts)
    return {name: [part for part in ordered if part.table == name] for name in names}


def _ends(span: "Span | None") -> tuple[str, str]:
    return (_time(span.first), _time(span.last)) if span else ("", "")


def _time(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%d %H:%M}"


def _aside(facts: "Facts") -> "Table":
    table = _table("set aside", "rows", "why, where the first of them is, and what is right")
    for one in facts.aside:
        key = ", ".join(f"{name} {value}" for name, value in one.first.key.items())
        fault = "; ".join(f"{name}: {value}" for name, value in one.first.fault.items())
        # Values come from somebody's rows: a bracket in one is no markup.
        lines = (f"{one.place}", key, fault, f"right: {one.first.right}")
        table.add_row(f"{one.rows:,}", f"[bold]{one.reason}[/]\n" + _plain("\n".join(lines)))
    return table


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _joins(facts: "Facts") -> "Table":
    table = _table(f"joins of {facts.week} that find nothing", "what", "rows", "what it means",
                   numbers=[1])  # fmt: skip
    for join in facts.joins:
        share = f"{join.missing:,} of {join.of:,}"
        table.add_row(join.what, share, join.means if join.missing else "")
    return table


def _days(facts: "Facts") -> "Table":
    table = _table(
        f"labels of {facts.week}, by the day of the impression",
        "day", "shown", "with propensity", "clicks", "conversions", "still to come",
        numbers=range(1, 6),
    )  # fmt: skip
    for day in facts.days:
        share = f"{day.logged / day.impressions:.0%}" if day.impressions else ""
        counts = (f"{day.impressions:,}", share, f"{day.clicks:,}", f"{day.conversions:,}")
        name = f"{datetime.fromtimestamp(day.start / 1e6, UTC):%a %m-%d}"
        table.add_row(name, *counts, f"{day.to_come:,.1f}")
    return table


def _answers(found: "list[Prospect]") -> "Table":
    table = _table("what a run can say", "", "", "why")
    for one in found:
        table.add_row(f"[{_COLOURS[one.answer]}]{one.answer}", one.what, _plain(one.why))
    return table
