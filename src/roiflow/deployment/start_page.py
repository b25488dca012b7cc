"""The start page behind nginx: links to every UI, and what there is to look at first."""

import grp
import os
import pwd
import time
from datetime import UTC, datetime
from pathlib import Path

from roiflow.deployment.edge import Pages
from roiflow.deployment.state import State, moment, platform_state
from roiflow.files import write_file
from roiflow.settings import Settings

TEMPLATE = Path(__file__).with_name("start_page.html.j2")
RUNS = 12
"""So many of the last runs are listed."""


def pages(home: Path) -> Pages:
    """What the edge of this home shows itself."""
    # nginx started by root reads pages as nobody, who may not enter a home: it is told to stay who
    # it is. Started by anybody else it stays that by itself, and warns of such a line.
    root = os.geteuid() == 0
    user = f"{pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name}" if root else None
    return Pages(home.absolute() / "edge" / "pages", home.absolute() / "runs", user)


def write_start_page(settings: Settings) -> Path:
    """Write the page anew, as the platform is now; where it is."""
    page = pages(settings.home).folder / "index.html"
    html = render(platform_state(settings, time.time()))
    with write_file(page) as aside:
        aside.write_text(html)
    return page


def render(state: State) -> str:
    """One HTML page that needs nothing beside it."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    return template.render(
        state=state,
        runs=state.runs[:RUNS],
        when=datetime.fromtimestamp(state.now, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        moment=moment,
    )
