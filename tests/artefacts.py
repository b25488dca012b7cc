"""What a run makes and hands on, and which of it names a place of one machine."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

MADE = (
    "runs/*/data", "runs/*/metrics", "runs/*/plots", "runs/*/params.yaml", "runs/*/dvc.yaml",
    "runs/*/dvc.lock", "packages", "artifacts", "bentoml/bentos", "lake", "promotions.jsonl",
    "evidently", "served", "stream", "loop",
)  # fmt: skip
"""Under a home; the rest says what runs on this machine now: servers/, edge/, logs/, airflow/."""

STORE = {"artifact_location", "artifact_uri", "storage_location"}
"""Columns of MLflow's own database that say where its store of files is; nothing reads them."""


def artefacts(home: Path) -> Iterator[Path]:
    """Files, without the compiled ones that running leaves beside code."""
    for pattern in MADE:
        for place in sorted(home.glob(pattern)):
            for path in (place, *sorted(place.rglob("*"))):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path


def naming(home: Path, *places: Path) -> list[str]:
    """Artefacts, and columns of MLflow's tables, in which one of the places occurs."""
    wanted = [str(place).encode() for place in places]
    named = [
        str(path.relative_to(home))
        for path in artefacts(home)
        if any(place in path.read_bytes() for place in wanted)
    ]
    return named + list(_columns(home / "mlflow.db", [str(place) for place in places]))


def _columns(database: Path, places: list[str]) -> Iterator[str]:
    if not database.exists():
        return
    store = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tables = [
            row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            for row in store.execute(f"SELECT * FROM {table}"):
                for column, value in zip(columns, row, strict=True):
                    if column not in STORE and any(place in str(value) for place in places):
                        yield f"mlflow.db: {table}.{column}: {value}"
    finally:
        store.close()
