"""Whose database a weekly run reads, and when Airflow is asked for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

OWN = "postgresql://me:own@db/ads"
CONNECTIONS = {
    "AIRFLOW_CONN_ROIFLOW_SQL": "postgresql://me:hunter2@db:5432/ads?sslmode=require",
    "AIRFLOW_CONN_OTHER": json.dumps(
        {"conn_type": "mysql", "host": "shop", "login": "me", "password": "p@ss/w", "schema": "ads"}
    ),
}
QUESTIONS = {
    "usual": ("sql", "roiflow_sql", None),
    "other": ("sql", "other", None),
    "files": ("files", "absent", None),
    "unnamed": ("sql", None, None),
    "absent": ("sql", "absent", None),
    "own": ("sql", "roiflow_sql", OWN),
    "own, absent": ("sql", "absent", OWN),
}
"""Source and connection of the form, and the environment's own ROIFLOW_SQL."""

# In a process of its own: Airflow wants a home and brings its own warnings. One for all questions,
# since it takes two seconds to import.
ASK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import weekly_training
from airflow.sdk.exceptions import AirflowException

def asked(source, connection, own):
    os.environ.pop("ROIFLOW_SQL", None)
    if own:
        os.environ["ROIFLOW_SQL"] = own
    form = {"source": source, "sql_connection": connection, "data_folder": None}
    try:
        found = weekly_training.settings_of(form).sql
    except AirflowException as error:
        return [type(error).__name__, "hunter2" in str(error)]
    return [found and found.get_secret_value(), repr(found)]

questions = json.loads(sys.argv[2])
print(json.dumps({name: asked(*one) for name, one in questions.items()}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "ROI"))
    }
    kept |= {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), **CONNECTIONS}
    kept |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT / "dags"), json.dumps(QUESTIONS)],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_connection_is_asked_for_where_the_source_is_sql(
    answers: dict[str, list[object]],
) -> None:
    usual = ["postgres://me:hunter2@db:5432/ads?sslmode=require", "SecretStr('**********')"]
    assert answers["usual"] == usual
    assert answers["other"][0] == "mysql://me:p%40ss%2Fw@shop/ads"
    assert answers["files"] == answers["unnamed"] == [None, "None"]


def test_the_environments_own_uri_comes_first(answers: dict[str, list[object]]) -> None:
    assert answers["own"][0] == answers["own, absent"][0] == OWN


def test_a_connection_that_is_not_there_is_said(answers: dict[str, list[object]]) -> None:
    assert answers["absent"] == ["AirflowNotFoundException", False]
