"""The whole platform up and down, with every real server."""

from pathlib import Path

import httpx

from roiflow import platform
from roiflow.deployment.state import airflow_password
from roiflow.settings import Settings

REPOSITORY = Path(__file__).parents[2]


def test_up_twice_then_down(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis_url=None, mlflow_uri=None)
    try:
        first = platform.up(settings, REPOSITORY)
        assert platform.up(settings, REPOSITORY) == first
        parts = {"api-server", "scheduler", "dag-processor", "triggerer"}
        others = {"redis", "nginx", "mlflow", "evidently", "stream-consume"}
        assert first.keys() == others | {f"airflow-{p}" for p in parts}
        for name in ("nginx", "mlflow", "evidently", "airflow-api-server"):
            assert httpx.get(f"{first[name].address}/", follow_redirects=True).status_code == 200
        health = httpx.get(f"{first['airflow-scheduler'].address}/api/v2/monitor/health").json()
        assert {part["status"] for part in health.values()} == {"healthy"}
        page = httpx.get(f"{first['nginx'].address}/").text
        for name in ("mlflow", "evidently", "airflow-api-server"):
            assert f'href="{first[name].address}/' in page
        assert httpx.post(f"{first['nginx'].address}/v1/slate").status_code == 503
        login = airflow_password(tmp_path)
        assert login
        token = httpx.post(
            f"{first['airflow-api-server'].address}/auth/token",
            json=dict(zip(("username", "password"), login, strict=True)),
        )
        assert token.status_code == 201
    finally:
        ended = platform.down(settings)
    assert set(ended) == first.keys()
    assert platform.status(settings) == {}
    assert platform.down(settings) == []
