"""Say what the source holds of the window now, so that DVC, which sees no source, pulls it again.

What a pull depends on lies outside the checkout: a folder, a bucket, a database, the lake. Its
fingerprint is what `ingest` depends on instead.
"""

import hashlib
import json
from pathlib import Path

from roiflow.data.sources import fingerprint
from roiflow.data.weeks import Week
from roiflow.files import write_file
from roiflow.params import IngestParams, load_params
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.stages.ingest import open_source, vocabulary_before


def main(held: Written, params: Path) -> None:
    """The source, the window and the fingerprints of all that a pull of it reads.

    No name of a place is written: the same files in another folder are the same data.
    """
    config = load_params(params).ingest
    settings = Settings()
    weeks = Week.parse(config.week).window(config.weeks)
    state = _state(config, settings, weeks)
    published = vocabulary_before(settings, config.source, weeks[-1])
    content = {
        "source": config.source,
        "weeks": [str(week) for week in weeks],
        "held": hashlib.sha256(state.encode()).hexdigest(),
        # A run of an earlier week that is registered late changes the numbers that this one starts
        # from, though none of its rows.
        "vocabulary": published and fingerprint.of_files(published.parent, [published]),
    }
    with write_file(held) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n")


def _state(config: IngestParams, settings: Settings, weeks: list[Week]) -> str:
    if config.source == "simulator":
        # What was served is files: the world, whose import takes longer than all else, is not made.
        from roiflow.simulator import served

        return served.state(config.simulator, settings.lake / config.source, weeks)
    return open_source(config, settings).state(weeks)


if __name__ == "__main__":
    run(main)
