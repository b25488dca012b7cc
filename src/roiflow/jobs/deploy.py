"""Serve a Bento on this machine, behind the edge, with the run's online features."""

import json
from dataclasses import asdict
from pathlib import Path

from roiflow.bundle import find_bento
from roiflow.deployment.release import deploy
from roiflow.deployment.start_page import write_start_page
from roiflow.errors import ServiceError
from roiflow.files import write_file
from roiflow.params import load_params
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.stream.checks import Limits


def main(bento: Path, online: Path, params: Path, deployed: Written) -> None:
    """Load the snapshot `online`, make `bento` the stable arm; write address and arms.

    Its door takes what `params` allows: other limits are another instance of the same Bento.

    A canary keeps its users, unless it is the canary that `bento` names: then it gets all. What
    served before is ended after the switch, and stays where anything fails. The same Bento
    and snapshot twice change nothing.
    """
    settings = Settings()
    try:
        tag = json.loads(bento.read_text())["tag"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"{bento}: does not name a Bento: {error}") from None
    home = settings.home.absolute()
    config = load_params(params)
    limits = Limits.of(config.stream, config.validate_)
    served = deploy(home, find_bento(tag, home), online, limits, settings.redis_url)
    with write_file(deployed) as aside:
        aside.write_text(json.dumps(asdict(served), indent=1) + "\n")
    write_start_page(settings)


if __name__ == "__main__":
    run(main)
