"""Serve champion and challenger on this machine, behind the edge, with the run's features."""

from pathlib import Path

from roiflow.artefacts.run import Bentos
from roiflow.bundle import find_bento
from roiflow.deployment.release import canary, deploy, roll_back
from roiflow.deployment.start_page import write_start_page
from roiflow.params import load_params
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.stream.checks import Limits


def main(bento: Path, online: Path, params: Path, deployed: Written) -> None:
    """Load the snapshot `online`, make what `bento` names the arms; write address and arms.

    The challenger gets `canary.start_share` of the users. Their doors take what `params` allows:
    other limits are another instance of the same Bento. What served before is ended after the
    switch, and stays where anything fails. The same Bentos and snapshot twice change nothing.
    """
    settings = Settings()
    home = settings.home.absolute()
    built, config = Bentos.read(bento), load_params(params)
    limits = Limits.of(config.stream, config.validate_)
    stable, redis = find_bento(built.stable.tag, home), settings.redis_url
    served = deploy(home, stable, online, limits, redis)
    beside = find_bento(built.canary.tag, home) if built.canary else None
    others = {arm.tag: arm.percent for arm in served.arms if arm.tag != stable.tag}
    if beside:
        # One that is on trial already keeps the users that it has, however many by now.
        percent = others.get(beside.tag, 100 * config.canary.start_share)
        served = canary(home, beside, online, limits, redis, percent)
    elif others:
        served = roll_back(home, redis)
    served.write(deployed)
    write_start_page(settings)


if __name__ == "__main__":
    run(main)
