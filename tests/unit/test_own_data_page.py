"""docs/own-data.md says what the code does."""

import re
from pathlib import Path

from roiflow.data import ids
from roiflow.data.rules import RULES
from roiflow.data.schemas import SCHEMAS, SNAPSHOTS
from roiflow.params import load_params

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own-data.md").read_text()
PARAMS = load_params(ROOT / "params.yaml")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_reason_that_is_explained_exists() -> None:
    said = set(re.findall(r"^\| `([^`]+)` \|", section("Common refusals"), re.MULTILINE))
    reasons = {rule.reason for rules in RULES.values() for rule in rules}
    (other,) = said - reasons
    assert other == "2 of the 4 weeks that end with ... are there"
    assert len(said) > 10


def test_tables_and_what_may_be_missing_are_the_contracts() -> None:
    text = section("Five tables")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(SCHEMAS)
    for name in SCHEMAS:
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert ("a whole snapshot" in row) == (name in SNAPSHOTS)
    (line,) = (line for line in text.splitlines() if "may be missing" in line)
    missing = set(re.findall(r"`(\w+)`", line.split("is UTC;")[1]))
    schemas = SCHEMAS.values()
    assert missing == {one.name for schema in schemas for one in schema if one.nullable}


def test_numbers_are_those_of_the_code() -> None:
    assert f"1 to {ids.MAX_NAME} characters" in PAGE
    assert f"at most {PARAMS.validate_.max_event_age_days} days later" in PAGE
    assert f"`ingest.files.weeks` weeks, {PARAMS.ingest.files.weeks} as shipped" in PAGE
    share = f"(`validate.max_quarantined_fraction`, {PARAMS.validate_.max_quarantined_fraction:.0%}"
    assert share.replace("%", " %") in PAGE
    assert f"their last {['no', 'one', 'two'][PARAMS.build_features.validation_days]} days" in PAGE
