"""What the end of a stage's or a job's program means."""

import pytest

from roiflow.errors import RunError, StoppedError
from roiflow.weekly.reasons import failure


@pytest.mark.parametrize(
    ("tail", "code", "kind"),
    [
        (["read", "QuarantineLimit: impressions: 3 of 4 rows"], 1, RunError),
        (["ServiceError: redis: did not get ready"], 1, StoppedError),
        (["OSError: /lake/x: No space left on device: the disk is full"], 1, StoppedError),
        (["Traceback (most recent call last):", "KeyError: 'ad_id'"], 1, StoppedError),
        (["epoch 2 of 4 (50 %)"], -9, StoppedError),
        ([], -9, StoppedError),
    ],
)
def test_only_an_error_of_roiflow_s_own_would_come_again(
    tail: list[str], code: int, kind: type[RunError]
) -> None:
    assert type(failure("stage export of x-2026-W33", tail, code)) is kind
