"""Where a run's checkout has what its stages make, as dvc.yaml declares it.

For whoever looks into a finished run. A stage or a job is told its own paths as arguments; what
jobs leave says its place itself (roiflow.artefacts).
"""

from pathlib import Path

VALIDATED = Path("data/validated")
FEATURES = Path("data/features")
ONLINE = FEATURES / "online"
LABELS = Path("data/labels")
CANDIDATES = Path("data/candidates")
RANKER = Path("data/ranker")
REFIT = Path("data/refit")
PACKAGE = Path("data/package")
