"""How far a piece of work is, where nobody sees a bar."""

import io
import subprocess
import sys
from threading import Event

from roiflow.progress import Lines, every

WORK = """
import time
from roiflow import progress
progress.SECONDS = 0.05
with progress.progress("build_features") as show:
    show(0.25, "read")
    time.sleep(0.5)
"""


def test_a_line_says_once_what_was_told_last() -> None:
    out = io.StringIO()
    lines = Lines("train_ranker", out)
    lines()
    for epoch in (1, 2):
        lines.tell(epoch / 4, f"epoch {epoch} of 4")
    lines()
    lines()
    lines.tell(1.0, "epoch 4 of 4")
    lines()
    assert out.getvalue().splitlines() == [
        "train_ranker: epoch 2 of 4 (50 %)",
        "train_ranker: epoch 4 of 4 (100 %)",
    ]


def test_it_is_told_while_one_step_takes_long() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "build_features: read (25 %)\n")


def test_nothing_is_done_beside_the_block_once_it_has_ended() -> None:
    seen, again = list[int](), Event()

    def work() -> None:
        seen.append(1)
        again.set()

    with every(0.001, work):
        assert again.wait(10)
    count = len(seen)
    again.clear()
    assert not again.wait(0.05)
    assert len(seen) == count
