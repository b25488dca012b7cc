"""`roiflow status`: what runs where, who is champion, and what to look at first."""

from pathlib import Path
from typing import TYPE_CHECKING

from roiflow.cli.terminal import here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roiflow.deployment.state import Champion, Run, Served, State

WIDTH = 15


def status() -> None:
    """What to look at first, what runs where, the champion, the last week and its verdict.

    Reads the files that servers and runs leave; starts nothing. The same is the start page behind
    the slate service's address.

        roiflow status
    """
    import time

    from roiflow.deployment.state import airflow_password, platform_state

    _, settings, console = here()
    state = platform_state(settings, time.time())
    for line in lines(state, airflow_password(settings.home), settings.logs):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def lines(state: "State", login: tuple[str, str] | None, logs: Path) -> "Iterator[str]":
    """The state as text; `login` is user and password of Airflow."""
    hints = [f"{hint.what} ({hint.then})" for hint in state.hints]
    yield from _block("look first", hints or ["nothing: all runs, and the last week passed"])
    for door in state.doors:
        where = door.address if door.runs else "does not run"
        # Shown where it is needed: the password is made by Airflow at its first start and is in a
        # file that nobody would look for.
        asks = (
            f"  user {login[0]}, password {login[1]}" if login and door.title == "Airflow" else ""
        )
        yield f"{door.title.lower():<{WIDTH}} {where}{asks if door.runs else ''}"
    yield f"{'logs':<{WIDTH}} {logs}"
    yield from _block("champion", [_champion(one) for one in state.champions] or ["none yet"])
    yield from _block("serves", [_served(one) for one in state.served] or ["nothing is deployed"])
    yield from _block("last week", _week(state.last) if state.last else ["none has finished yet"])
    yield f"{'events':<{WIDTH}} {_events(state)}"


def _block(name: str, texts: list[str]) -> "Iterator[str]":
    for number, text in enumerate(texts):
        yield f"{'' if number else name:<{WIDTH}} {text}"


def _champion(one: "Champion") -> str:
    return (
        f"{one.model} version {one.version}, week {one.week or 'unknown'}, "
        f"package {one.digest[:12]}, as {one.said_by} says"
    )


def _served(one: "Served") -> str:
    version = f"version {one.version}, " if one.version else ""
    return f"{one.arm} {one.percent:g} %: {version}{one.tag}"


def _week(run: "Run") -> list[str]:
    trial, page = run.trial, [f"report {run.report}"] if "report" in run.pages else []
    promoted = f"; promoted by rule: {run.rule}" if run.rule != "none" else "; not promoted"
    lines = [f"{run.source} {run.week}: screen {_because(run.verdict, run.reason)}"]
    if trial is not None:
        lines.append(f"trial {_because(trial.verdict, trial.reason)}{promoted}")
    if trial is not None and trial.budget is not None:
        left = trial.budget
        lines.append(f"error budget {left.left:.3f} of {left.budget:g} left for {left.year}")
    return [*lines, *page]


def _because(verdict: str, reason: str) -> str:
    return f"{verdict}: {reason}" if reason else verdict


def _events(state: "State") -> str:
    from roiflow.deployment.state import moment

    if state.stream is None:
        return "none was taken yet"
    return f"{state.stream.taken:,}, known up to {moment(state.stream.known, state.now)}"
