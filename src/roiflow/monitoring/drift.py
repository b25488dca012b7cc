"""Data drift of the test week against the training reference: judged here, shown in Evidently.

Every row is counted, once, into histograms, which give the verdicts; methods and thresholds are
set, so the verdict of one week can be compared with the next one's. Evidently's report has these
verdicts, and pictures of the bins that were compared, which a few rows stand for: from the rows
themselves it would take minutes for millions, and a draw of them hides what moved in few.

Conversions of the test week are younger than those of the training weeks, and fewer of them known.
Both sides count as many as they will have (labels.settled), or each week would seem to convert less
than the weeks before it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from roiflow.artefacts.monitoring import ColumnDrift, Drift
from roiflow.data.split import TEST, TRAIN
from roiflow.errors import ContractError, ParamsError
from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Features, Longs
from roiflow.files import write_file
from roiflow.labels.model import Labels
from roiflow.labels.settled import Settled, settle
from roiflow.monitoring.histograms import Codes, Histogram, Numbers, Shares, distance, share
from roiflow.params import DriftParams, load_declared

if TYPE_CHECKING:
    import pandas as pd
    from evidently.core.report import Snapshot

Names = Literal["all"] | list[str]

CONVERTED = "converted"
MONEY, OUTCOMES = ("bid", "cost"), ("clicked", CONVERTED)
READ = (
    "features.json",
    "attributes.npy",
    *(f"outcomes/{name}.npy" for name in ("row", "known_time", "revenue")),
    *(
        f"impressions/{name}.npy"
        for name in ("split", "ad", "event_time", "context", "dense", *MONEY, *OUTCOMES)
    ),
)
"""Files of the features that the columns are in."""

BLOCK_ROWS = 1 << 16


class Watched(BaseModel):
    """monitoring/drift.yaml: the columns of each group that the report compares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: Names
    attributes: Names
    money: Names
    outcomes: Names
    dense: Names


def load_watched(path: Path) -> Watched:
    """Raises ParamsError, naming file, key and value."""
    return load_declared(Watched, path)


class _Side:
    """The histograms of one side's impressions, added to block by block."""

    def __init__(self, watched: Watched, dense_names: Sequence[str]) -> None:
        """Raises ParamsError where `watched` names a column that its group does not have."""
        self._dense = _chosen("dense", watched.dense, dense_names)
        self._money = _chosen("money", watched.money, MONEY)
        self._names = [*self._dense, *self._money]
        self._numbers = Numbers(len(self._names))
        self._context = _chosen("context", watched.context, CONTEXT)
        self._attributes = _chosen("attributes", watched.attributes, AD_ATTRIBUTES)
        self._outcomes = _chosen("outcomes", watched.outcomes, OUTCOMES)
        codes = (*self._context, *self._attributes, *self._outcomes)
        self._codes = {name: Codes() for name in codes}

    def add(self, features: Features, rows: Longs) -> None:
        """Count impressions `rows` (n,)."""
        log = features.impressions
        # In the type of the dense features, whose bits are the bins: money, in whole micros, loses
        # no more than a bin's width by it.
        block = np.empty((rows.size, len(self._names)), np.float32)
        block[:, : len(self._dense)] = log.dense[rows][:, list(self._dense.values())]
        for column, name in enumerate(self._money, len(self._dense)):
            block[:, column] = getattr(log, name)[rows]
        self._numbers.add(block)
        context, attributes = log.context[rows], features.attributes[log.ad[rows]]
        for name, column in self._context.items():
            self._codes[name].add(context[:, column])
        for name, column in self._attributes.items():
            self._codes[name].add(attributes[:, column])
        for name in self._outcomes:
            self._codes[name].add(getattr(log, name)[rows])

    def histograms(self) -> dict[str, Histogram]:
        """Numbers first, as `watched` and the tables have them."""
        numbers = dict(zip(self._names, self._numbers.histograms(), strict=True))
        return numbers | {name: codes.histogram() for name, codes in self._codes.items()}


@dataclass(frozen=True)
class Counted:
    """Every watched column of the training weeks and of the test week, from all their rows."""

    shares: dict[str, Shares]
    maturity: dict[str, float | None]
    """Of `reference` and `current`, see Drift."""


def count(features: Features, labels: Labels, watched: Watched, bins: int) -> Counted:
    """Both sides, with the conversions that each will have.

    Raises ParamsError where `watched` names a column that its group does not have, ContractError
    where a side has no impression.
    """
    sides = {split: _Side(watched, features.dense_names) for split in (TRAIN, TEST)}
    splits = features.impressions.split
    # The table is memory-mapped and a block of it is in memory at a time, whatever its length.
    for start in range(0, splits.size, BLOCK_ROWS):
        block = splits[start : start + BLOCK_ROWS]
        for split, side in sides.items():
            side.add(features, start + np.flatnonzero(block == split))
    for split, name in ((TRAIN, "training weeks have"), (TEST, "test week has")):
        if not np.any(splits == split):
            raise ContractError(f"no drift to tell: the {name} no impression")
    settled = {split: settle(labels, features, np.flatnonzero(splits == split)) for split in sides}
    reference, current = (_ripe(side.histograms(), settled[split]) for split, side in sides.items())
    return Counted(
        {name: share(one, current[name], bins) for name, one in reference.items()},
        {"reference": settled[TRAIN].maturity, "current": settled[TEST].maturity},
    )


def _ripe(found: dict[str, Histogram], settled: Settled) -> dict[str, Histogram]:
    """With as many conversions as there will be."""
    if CONVERTED not in found:
        return found
    rows = found[CONVERTED].rows
    # Whole rows, as all that a histogram counts.
    hits = min(round(float(settled.conversions.sum())), rows)
    value, counts = np.array([0.0, 1.0]), np.array([rows - hits, hits])
    some = np.flatnonzero(counts)
    one = Histogram(value[some], counts[some], value[some][0], value[some][-1], category=True)
    return found | {CONVERTED: one}


def _chosen(group: str, names: Names, there: Sequence[str]) -> dict[str, int]:
    """The group's columns that are watched, and where they are in it."""
    if names == "all":
        names = list(there)
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ParamsError(
            f"monitoring/drift.yaml: {group}: no column {unknown[0]!r}; there are {sorted(there)}"
        )
    return {name: list(there).index(name) for name in names}


def judge(found: Counted, params: DriftParams, inputs: str) -> Drift:
    """A column drifts where its score reaches the threshold or too much of it is unseen."""
    columns = [_judge(name, one, params) for name, one in found.shares.items()]
    # Columns count alike: one that drifted far is at the top of the list, not more of the share.
    share = sum(column.drifted for column in columns) / len(columns)
    return Drift(
        method=params.method,
        threshold=params.threshold,
        max_unseen=params.max_unseen,
        drifted_share=share,
        drifted=share > params.max_drifted_share,
        columns=tuple(sorted(columns, key=lambda column: -column.score)),
        inputs=inputs,
        maturity=found.maturity,
    )


def _judge(name: str, found: Shares, params: DriftParams) -> ColumnDrift:
    score = distance(params.method, found, params.empty_share)
    drifted = score >= params.threshold or found.unseen > params.max_unseen
    return ColumnDrift(name, score, found.unseen, drifted)


def show(
    drift: Drift, found: Mapping[str, Shares], params: DriftParams, when: datetime
) -> "Snapshot":
    """Evidently's report with the verdicts of `drift`, dated `when`, the worst columns first."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    method, names = _register(drift), [column.column for column in drift.columns]
    total = DriftedColumnsCount(
        method=method, threshold=params.threshold, drift_share=params.max_drifted_share
    )
    each = [ValueDrift(column=name, method=method, threshold=params.threshold) for name in names]
    sides = [_frame(found, side, params.shown_rows) for side in ("current", "reference")]
    # Categories to Evidently, since the bins are ours: of numbers it would make bins of its own and
    # draw what was not compared.
    definition = DataDefinition(categorical_columns=names)
    current, reference = (Dataset.from_pandas(side, definition) for side in sides)
    report = Report([total, *each], include_tests=True)
    return report.run(current, reference, timestamp=when)


def _register(drift: Drift) -> str:
    """Let Evidently ask `drift` where it would compare two columns itself; the method's name."""
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    # Evidently knows methods by name and calls them with two columns of a frame: by the column's
    # name the verdict is looked up, and the few rows that it is given are for its pictures only.
    found = {column.column: (column.score, column.drifted) for column in drift.columns}
    name = f"{drift.method} of all rows, or {drift.max_unseen:.1%} of them unseen before"
    test = StatTest(name, name, [ColumnType.Categorical])
    register_stattest(test, lambda column, *_: found[str(column.name)])
    return name


def _frame(
    found: Mapping[str, Shares], side: Literal["reference", "current"], rows: int
) -> "pd.DataFrame":
    """So many rows whose columns have the shares of all rows, in the bins that were compared."""
    import pandas as pd

    # No draw: row k stands for the k-th part of the distribution, so equal shares give equal
    # pictures.
    place = (np.arange(rows) + 0.5) / rows
    return pd.DataFrame(
        {
            name: np.array(one.bins, object)[np.searchsorted(np.cumsum(getattr(one, side)), place)]
            for name, one in found.items()
        },
        dtype=object,
    )


def save(snapshot: "Snapshot", drift: Drift, folder: Path) -> None:
    """Write drift.html (Evidently's page) and drift.json (the scores)."""
    with write_file(folder / "drift.html") as aside:
        snapshot.save_html(str(aside))
    drift.write(folder / Drift.place.name)


def publish(snapshot: "Snapshot", workspace: Path, project: str, name: str, drift: Drift) -> None:
    """Put the report in the workspace that Evidently's UI shows, in the place of its namesake.

    The namesakes are remembered in <workspace>/published.json; a report with equal scores is left.
    """
    from evidently.ui.workspace import Workspace

    store = Workspace.create(str(workspace))
    found = store.search_project(project)
    target = found[0] if found else _create_project(store, project)
    record = workspace / "published.json"
    published = json.loads(record.read_text()) if record.exists() else {}
    digest = hashlib.sha256(json.dumps(asdict(drift)).encode()).hexdigest()
    key = f"{project}/{name}"
    old = published.get(key)
    if old and old["digest"] == digest:
        return
    # Added before the old one goes: a week is twice in the plot for a moment, not missing if this
    # ends here.
    made = store.add_run(target.id, snapshot, include_data=False, name=name)
    with write_file(record) as aside:
        aside.write_text(
            json.dumps({**published, key: {"run": str(made.id), "digest": digest}}, indent=1)
        )
    if old:
        store.delete_run(target.id, old["run"])


def _create_project(store: Any, name: str) -> Any:
    """A project whose page plots the drifted share and the worst columns week by week."""
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import DashboardPanelPlot

    project = store.create_project(name, description="Each test week against its training weeks.")
    project.dashboard.add_panel(
        DashboardPanelPlot(
            title="Share of drifted columns",
            subtitle="per week",
            size="full",
            values=[
                PanelMetric(
                    legend="share",
                    metric="DriftedColumnsCount",
                    metric_labels={"value_type": "share"},
                )
            ],
            plot_params={"plot_type": "line"},
        )
    )
    project.save()
    return project


def week_end(micros: int) -> datetime:
    """Microseconds since the epoch, UTC, as a datetime."""
    return datetime.fromtimestamp(micros / 1e6, UTC)
