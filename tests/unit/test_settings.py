"""What of an environment goes on to other processes, and of an address to other eyes."""

import pytest

from roiflow.settings import without_login, without_logins, without_secrets

OURS = {"ROIFLOW_HOME": "/srv", "PATH": "/bin", "AWS_REGION": "eu-west-1"}
LOGINS = {
    "ROIFLOW_MLFLOW_URI": "postgresql://me:pa55@db/mlflow",
    "ROIFLOW_REDIS_URL": "redis://:pa55@cache",
    "AWS_SECRET_ACCESS_KEY": "pa55",
}
SECRETS = {
    "ROIFLOW_SQL": "postgresql://me:pa55@db/shop",
    "roiflow_sql": "mysql://me:pa55@db/shop",
    "AIRFLOW_CONN_ROIFLOW_SQL": "postgresql://me:pa55@db/shop",
    "AIRFLOW__CORE__FERNET_KEY": "pa55",
    "_AIRFLOW_SUPERVISOR": "pa55",
}


def test_secrets_stay() -> None:
    assert without_secrets(OURS | LOGINS | SECRETS) == OURS | LOGINS
    assert without_logins(OURS | LOGINS) == OURS


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:pa55@cache:6379/0", "redis://cache:6379/0"),
        ("postgresql://me:p/a@55@db/mlflow", "postgresql://db/mlflow"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
    ],
)
def test_an_address_is_shown_without_who_and_password(address: str, shown: str) -> None:
    assert without_login(address) == shown
