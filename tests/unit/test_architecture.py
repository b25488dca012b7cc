"""The picture of docs/architecture.md against the data flow that runs."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_stage_is_in_the_picture() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [name for name in stages if f"[{name}]" not in picture] == []
