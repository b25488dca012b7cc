"""Serve a Bento on this machine, behind the edge, with the run's online features."""

from pathlib import Path

from roiflow.artefacts.run import Bento
from roiflow.bundle import find_bento
from roiflow.deployment.release import deploy
from roiflow.deployment.start_page import write_start_page
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
    home = settings.home.absolute()
    found = find_bento(Bento.read(bento).tag, home)
    config = load_params(params)
    limits = Limits.of(config.stream, config.validate_)
    deploy(home, found, online, limits, settings.redis_url).write(deployed)
    write_start_page(settings)


if __name__ == "__main__":
    run(main)
