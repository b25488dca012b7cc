"""How far a piece of work is, where nobody sees a bar."""

import io
from collections.abc import Iterator

from roiflow.progress import Lines


def test_a_line_now_and_then_says_how_far_it_is() -> None:
    times: Iterator[float] = iter([0.0, 1.0, 3.5, 4.0, 6.6])
    out = io.StringIO()
    show = Lines("train_ranker", out, 3.0, lambda: next(times))
    for epoch in range(1, 5):
        show(epoch / 4, f"epoch {epoch} of 4")
    assert out.getvalue().splitlines() == [
        "train_ranker: epoch 2 of 4 (50 %)",
        "train_ranker: epoch 4 of 4 (100 %)",
    ]


def test_what_is_soon_done_says_nothing() -> None:
    out = io.StringIO()
    Lines("pull", out, 3.0, lambda: 0.0)(0.5, "half")
    assert out.getvalue() == ""
