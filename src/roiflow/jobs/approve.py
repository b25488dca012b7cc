"""A signed override: judge a registered version again with a person's name and reason."""

from roiflow.errors import GateError
from roiflow.evaluation.gate import Override
from roiflow.jobs.decide import parity_then
from roiflow.jobs.gate import DECISION, gate
from roiflow.jobs.promote import promote
from roiflow.jobs.register import decision_tags, read_decision
from roiflow.params import load_params
from roiflow.registry import CHALLENGER, CHAMPION, Registry, model_name, read_digest
from roiflow.run import checkout_of
from roiflow.settings import Settings
from roiflow.stages.command import run


def main(source: str, version: int, who: str, why: str) -> None:
    """Promote a version in the name of `who`; the decision's digest covers the signature.

    Raises GateError where the run's checkout no longer holds the version's package, or where it
    already is the champion.
    """
    settings = Settings()
    registry = Registry(settings.registry_uri, settings.home)
    known = registry.get(model_name(source), version)
    champion = registry.by_alias(known.name, CHAMPION)
    folder = checkout_of(settings.home, source, known.tags["week"])
    held = read_digest(folder / "data" / "package")
    if held != known.digest:
        raise GateError(f"{folder}: holds package {held}, version {version} is {known.digest}")
    params = load_params(folder / "params.yaml")
    package = registry.package(champion) if champion else None
    gate(folder, package, params, Override(who, why), parity_then(known))
    decision = read_decision(folder / DECISION)
    for key, value in decision_tags(decision).items():
        registry.set_tag(known, key, value)
    registry.set_alias(known, CHALLENGER)
    promote(registry, known, decision)


if __name__ == "__main__":
    run(main)
