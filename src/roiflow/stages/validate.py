"""Check the raw window against the data contract; set bad rows aside with their reasons."""

from collections import Counter
from pathlib import Path

from roiflow.artefacts.validation import Validation
from roiflow.data import lake
from roiflow.data.pulled import read_pulled
from roiflow.data.validate import TABLES, Checked, RawWindow, validate
from roiflow.files import write_directory
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    raw: Path, validated: Written, quarantine: Written, metrics: Written, params: Path
) -> None:
    """Outputs change only once every partition was accepted."""
    bounds = load_params(params).validate_
    pulled = read_pulled(raw)
    summary = Summary()
    parts = len(pulled.weeks) * len(TABLES)
    with (
        progress("validate") as show,
        # Both folders take their places as the block ends: an error in it, such as too many bad
        # rows, writes neither.
        write_directory(validated) as clean,
        write_directory(quarantine) as bad,
    ):
        checks = validate(RawWindow(raw, pulled.source), pulled.weeks, pulled.as_of, bounds)
        for number, checked in enumerate(checks, start=1):
            show(number / parts, f"{checked.table} {checked.week}")
            lake.write(clean, checked.table, checked.week, checked.clean)
            lake.write(bad, checked.table, checked.week, checked.quarantined)
            summary.add(checked)
    summary.counts().write(metrics)


class Summary:
    """Counts for metrics/validate.json."""

    def __init__(self) -> None:
        self._rows = Counter(dict.fromkeys(TABLES, 0))
        self._reasons: dict[str, Counter[str]] = {table: Counter() for table in TABLES}
        self._orphans = 0

    def add(self, checked: Checked) -> None:
        """Count one partition."""
        self._rows[checked.table] += checked.rows
        self._reasons[checked.table].update(checked.reasons)
        self._orphans += checked.orphans

    def counts(self) -> Validation:
        """Of the partitions so far."""
        bad = {table: sum(counts.values()) for table, counts in self._reasons.items()}
        return Validation(
            rows=dict(self._rows),
            quarantined=bad,
            quarantined_share={
                table: round(bad[table] / max(rows, 1), 6) for table, rows in self._rows.items()
            },
            reasons={table: dict(counts) for table, counts in self._reasons.items() if counts},
            orphan_conversions=self._orphans,
        )


if __name__ == "__main__":
    run(main)
