"""Make a run's checkout: `python -m roiflow.jobs.prepare SOURCE WEEK` in the main checkout."""

from pathlib import Path

from roiflow.settings import Settings
from roiflow.stages.command import run
from roiflow.weekly.checkout import prepare


def main(source: str, week: str) -> None:
    """Make the checkout, or bring an earlier one to the tree as it is now; print where it is."""
    print(prepare(Path.cwd(), Settings().home, source, week))


if __name__ == "__main__":
    run(main)
