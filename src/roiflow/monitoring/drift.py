"""Data drift of the test week against the training reference, by Evidently.

Methods and thresholds are set, never chosen from the sample's size, so the verdict of one week can
be compared with the next one's. Both sides are seeded samples of at most `sample_rows` impressions.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from roiflow.artefacts.monitoring import ColumnDrift, Drift
from roiflow.data.split import TEST, TRAIN
from roiflow.errors import ParamsError
from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Features, Longs
from roiflow.files import write_file
from roiflow.params import DriftParams

if TYPE_CHECKING:
    import pandas as pd
    from evidently.core.report import Snapshot

Names = Literal["all"] | list[str]


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
    try:
        return Watched.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (value {fault['input']!r})"
            for fault in error.errors()
        )
        raise ParamsError(f"{path}: " + "; ".join(faults)) from None


def impression_columns(
    features: Features, rows: Longs, watched: Watched
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numerical and categorical columns (n,) of impressions `rows` (n,).

    Raises ParamsError where `watched` names a column that the group does not have.
    """
    log = features.impressions
    numerical = _chosen(
        "dense", watched.dense, dict(zip(features.dense_names, log.dense[rows].T, strict=True))
    ) | _chosen("money", watched.money, {"bid": log.bid[rows], "cost": log.cost[rows]})
    attributes = features.attributes[log.ad[rows]]
    categorical = (
        _chosen("context", watched.context, dict(zip(CONTEXT, log.context[rows].T, strict=True)))
        | _chosen(
            "attributes",
            watched.attributes,
            dict(zip(AD_ATTRIBUTES, attributes.T, strict=True)),
        )
        | _chosen(
            "outcomes",
            watched.outcomes,
            {"clicked": log.clicked[rows], "converted": log.converted[rows]},
        )
    )
    return numerical, categorical


def _chosen(group: str, names: Names, there: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if names == "all":
        return dict(there)
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ParamsError(
            f"monitoring/drift.yaml: {group}: no column {unknown[0]!r}; there are {sorted(there)}"
        )
    return {name: there[name] for name in names}


def sample(rows: Longs, limit: int, rng: np.random.Generator) -> Longs:
    """At most `limit` of `rows`, without replacement, in their order."""
    if rows.size <= limit:
        return rows
    return np.sort(rng.choice(rows, size=limit, replace=False))


def compare(
    features: Features, params: DriftParams, watched: Watched, when: datetime
) -> "Snapshot":
    """Evidently's report of the test week against the training weeks, dated `when`."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    rng = np.random.default_rng(params.seed)
    frames = []
    for split in (TEST, TRAIN):
        rows = sample(features.rows(split), params.sample_rows, rng)
        numerical, categorical = impression_columns(features, rows, watched)
        frames.append(_frame(numerical, categorical))
    definition = DataDefinition(
        numerical_columns=list(numerical), categorical_columns=list(categorical)
    )
    preset = DataDriftPreset(
        num_method=params.method,
        cat_method=params.method,
        num_threshold=params.threshold,
        cat_threshold=params.threshold,
        drift_share=params.max_drifted_share,
    )
    current, reference = (Dataset.from_pandas(frame, definition) for frame in frames)
    return Report([preset], include_tests=True).run(current, reference, timestamp=when)


def _frame(
    numerical: Mapping[str, np.ndarray], categorical: Mapping[str, np.ndarray]
) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {name: values.astype(np.float64) for name, values in numerical.items()}
        | {name: values.astype(np.int64).astype(str) for name, values in categorical.items()}
    )


def summary(snapshot: "Snapshot", features: Features, params: DriftParams, inputs: str) -> Drift:
    """The report's scores; a column drifts where its score reaches the threshold."""
    metrics: list[dict[str, Any]] = json.loads(snapshot.json())["metrics"]
    scores = {
        metric["config"]["column"]: float(metric["value"])
        for metric in metrics
        if "column" in metric["config"]
    }
    columns = tuple(
        ColumnDrift(name, score, score >= params.threshold) for name, score in scores.items()
    )
    share = sum(column.drifted for column in columns) / len(columns)
    return Drift(
        method=params.method,
        threshold=params.threshold,
        reference_rows=min(features.rows(TRAIN).size, params.sample_rows),
        current_rows=min(features.rows(TEST).size, params.sample_rows),
        drifted_share=share,
        drifted=share > params.max_drifted_share,
        columns=tuple(sorted(columns, key=lambda column: -column.score)),
        inputs=inputs,
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
