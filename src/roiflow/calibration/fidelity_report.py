"""The fidelity report: one HTML file that needs nothing beside it, or its plot alone as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.calibration.fidelity import Fidelity
from roiflow.calibration.marginals import Curve, Distribution, Marginal
from roiflow.files import write_file

TEMPLATE = Path(__file__).with_name("fidelity.html.j2")
INK, ACCENT, MUTED = "#1c2430", "#2457a6", "#9aa5b1"
COLUMNS = 5
POINTS = 400
"""Of a drawn distribution."""

TITLES = {
    "activity": "Events per user-week",
    "gap": "Time between events",
    "popularity": "Lorenz curve of items",
    "position": "Click rate by position",
    "click": "Clicks per impression",
    "conversion": "Conversions per click",
    "price": "Price over the median",
    "revenue": "Revenue over the median",
}
AXES = {
    "activity": "events",
    "gap": "seconds",
    "popularity": "share of items, favourites first",
    "position": "position, relative to 1",
    "click": "week",
    "conversion": "week",
    "price": "price / median",
    "revenue": "revenue / median",
}


@dataclass(frozen=True)
class Section:
    """One log: the world as it is, and where it was calibrated, as it is then."""

    before: Fidelity
    after: Fidelity | None


def write_report(out: Path, sections: Sequence[Section]) -> None:
    """Write HTML, or where the name ends with .png the plots of the sections below each other."""
    if out.suffix == ".png":
        with write_file(out) as path:
            _figure(sections).savefig(path, format="png", dpi=80, metadata={"Software": None})
        return
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    html = template.render(
        sections=[(section, Markup(_svg(_figure([section])))) for section in sections],
        marginals=TITLES,
        calibrated=any(section.after for section in sections),
    )
    with write_file(out) as path:
        path.write_text(html)


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    text = StringIO()
    # Ids in an SVG are random without a salt, and its date is now: equal reports are to be equal
    # bytes. Text stays text, so that it can be searched and needs no font inside.
    with rc_context({"svg.hashsalt": "fidelity", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    # Without the XML head, which may not stand inside HTML.
    return svg[svg.index("<svg") :]


def _figure(sections: Sequence[Section]) -> Any:
    """A grid of plots per section, its name above it."""
    # A Figure of its own and not pyplot, which keeps every figure and looks for a display.
    from matplotlib.figure import Figure

    rows = [-(-len(section.before.distance) // COLUMNS) for section in sections]
    figure = Figure(figsize=(2.8 * COLUMNS, sum(2.5 * count + 0.3 for count in rows)))
    parts = figure.subfigures(len(sections), 1, height_ratios=rows, squeeze=False)[:, 0]
    for section, part, count in zip(sections, parts, rows, strict=True):
        part.subplots_adjust(
            left=0.04,
            right=0.99,
            wspace=0.22,
            hspace=0.7,
            top=1 - 0.26 / count,
            bottom=0.2 / count,
        )
        if len(sections) > 1:
            part.suptitle(section.before.log, fontsize=11, color=INK, x=0.04, ha="left")
        for place, name in enumerate(section.before.distance):
            _draw(part.add_subplot(count, COLUMNS, place + 1), name, section)
    return figure


def _draw(axes: Any, name: str, section: Section) -> None:
    after = section.after
    distances = f"{section.before.distance[name]:.3f}"
    if after is not None:
        distances += f" → {after.distance[name]:.3f}"
    axes.set_title(f"{TITLES[name]}\n{distances}", fontsize=9, color=INK)
    axes.set_xlabel(AXES[name], fontsize=8)
    axes.tick_params(colors=INK, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7ec", lw=0.7)
    if name in {"activity", "gap", "price", "revenue"}:
        axes.set_xscale("log")
    simulated = section.before if after is None else after
    _line(axes, name, section.before.real[name], INK, "real")
    if after is not None and name in section.before.simulated:
        _line(axes, name, section.before.simulated[name], MUTED, "before")
    if name in simulated.simulated:
        label = "simulated" if after is None else "after"
        _line(axes, name, simulated.simulated[name], ACCENT, label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=7.5)


def _line(axes: Any, name: str, marginal: Marginal, colour: str, label: str) -> None:
    match marginal:
        case Curve(x, y):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.plot(x, y, "o-", ms=3, lw=1.3, color=colour, label=label)
        case Distribution(value, weight):
            share = np.cumsum(weight)
            # A log has millions of values, and each drawn one is text in the file.
            keep = np.unique(np.linspace(0, value.size - 1, POINTS).astype(np.int64))
            at = value[keep] if name == "popularity" else np.exp(value[keep])
            axes.plot(at, share[keep], lw=1.3, color=colour, label=label)
