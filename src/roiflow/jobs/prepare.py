"""Make a run's checkout: `python -m roiflow.jobs.prepare SOURCE WEEK` in the main checkout."""

from pathlib import Path

from roiflow.run import prepare
from roiflow.settings import Settings
from roiflow.stages.command import run


def main(source: str, week: str) -> None:
    """Make the checkout, or bring an earlier one to the tree as it is now; print where it is."""
    settings = Settings()
    folder = settings.data_folder
    print(prepare(Path.cwd(), settings.home, source, week, folder, sql=settings.sql))


if __name__ == "__main__":
    run(main)
