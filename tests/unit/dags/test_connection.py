"""Whose database a weekly run reads, and when Airflow is asked for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# In a process of its own: Airflow wants a home and brings its own warnings.
ASK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import weekly_training
from airflow.sdk.exceptions import AirflowException

def asked(source, connection):
    form = {"source": source, "sql_connection": connection, "data_folder": None}
    try:
        found = weekly_training.settings_of(form).sql
    except AirflowException as error:
        return [type(error).__name__, "hunter2" in str(error)]
    return [found and found.get_secret_value(), repr(found)]

answers = [asked(*one) for one in json.loads(sys.argv[2])]
print(json.dumps(answers))
"""


def ask(
    folder: Path, questions: list[tuple[str, str | None]], **variables: str
) -> list[list[object]]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "ROI"))
    }
    kept |= {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    kept |= {"PYTHONWARNINGS": "ignore", **variables}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT / "dags"), json.dumps(questions)],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return answers


CONNECTIONS = {
    "AIRFLOW_CONN_ROIFLOW_SQL": "postgresql://me:hunter2@db:5432/ads?sslmode=require",
    "AIRFLOW_CONN_OTHER": json.dumps(
        {"conn_type": "mysql", "host": "shop", "login": "me", "password": "p@ss/w", "schema": "ads"}
    ),
}


def test_the_connection_is_asked_for_where_the_source_is_sql(tmp_path: Path) -> None:
    questions = [("sql", "roiflow_sql"), ("sql", "other"), ("files", "absent"), ("sql", None)]
    first, other, files, unnamed = ask(tmp_path, questions, **CONNECTIONS)
    assert first == ["postgres://me:hunter2@db:5432/ads?sslmode=require", "SecretStr('**********')"]
    assert other[0] == "mysql://me:p%40ss%2Fw@shop/ads"
    assert files == unnamed == [None, "None"]


def test_the_environments_own_uri_comes_first(tmp_path: Path) -> None:
    variables = {**CONNECTIONS, "ROIFLOW_SQL": "postgresql://me:own@db/ads"}
    answers = ask(tmp_path, [("sql", "roiflow_sql"), ("sql", "absent")], **variables)
    assert [answer[0] for answer in answers] == ["postgresql://me:own@db/ads"] * 2


@pytest.mark.parametrize("variables", [CONNECTIONS])
def test_a_connection_that_is_not_there_is_said(tmp_path: Path, variables: dict[str, str]) -> None:
    (answer,) = ask(tmp_path, [("sql", "absent")], **variables)
    assert answer == ["AirflowNotFoundException", False]
