"""What a Bento brings with it."""

import subprocess
import sys

from roiflow.bundle import CODE

LOADED = """
import sys
import roiflow.entry, roiflow.settings, roiflow.serving.service
print(*{name.split(".")[1] for name in sys.modules if name.startswith("roiflow.")})
"""


def test_a_bento_has_every_part_of_the_code_that_serving_imports() -> None:
    command = [sys.executable, "-c", LOADED]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name not in CODE and f"{name}.py" not in CODE} == set()
