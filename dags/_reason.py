"""Why a task failed or was skipped, in one line, where a program finds it."""

from collections.abc import Iterator
from contextlib import contextmanager

REASON = "reason"
"""The XCom of that line."""


@contextmanager
def in_one_line() -> Iterator[None]:
    """An error of roiflow's own ends the task at once: it would fail again.

    What a disk or a server did, and a program that was killed, is retried; a bug is, too, with its
    traceback. Nothing to do ends the task as skipped, and with it every one behind it.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
    )

    from roiflow.entry import expected, line_of
    from roiflow.errors import NothingNew, RoiflowError, ServiceError, StoppedError

    task = get_current_context()["ti"]
    try:
        yield
    except NothingNew as nothing:
        task.xcom_push(REASON, str(nothing))
        raise AirflowSkipException(str(nothing)) from None
    except expected() as error:
        line = line_of(error)
        task.xcom_push(REASON, line)
        passing = ServiceError, StoppedError
        final = isinstance(error, RoiflowError) and not isinstance(error, passing)
        raise (AirflowFailException if final else AirflowException)(line) from None
