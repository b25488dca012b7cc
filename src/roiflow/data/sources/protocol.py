"""What every source gives."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from roiflow.data.weeks import Week

Tables = dict[str, pa.Table]
"""One Arrow table per name of `schemas.SCHEMAS`."""


class Source(Protocol):
    """A place that holds weeks of behaviour data."""

    name: str

    def pull(self, week: Week, as_of: int) -> Tables:
        """The rows that became known in `week` and before `as_of` (microseconds, UTC).

        `ads` and `users` are the snapshot that holds for the week. The rows are as the source has
        them: validation comes later. Raises UnknownWeek, naming the weeks there are, where the
        source does not hold the week, and SourceError, naming the file, where it cannot be read.
        """
        ...

    def weeks(self) -> list[Week]:
        """The weeks that `pull` gives whole, oldest first; none where the source holds none.

        A week that may still grow is not among them. `weeks.window_ends` says which of them can be
        tested on. SourceError where the source cannot be read.
        """
        ...

    def state(self, weeks: Sequence[Week]) -> str:
        """What a pull of these weeks depends on outside the checkout; no secret is in it.

        It changes whenever a pull of one of them may give other rows, and with nothing else that
        can be told apart. Weeks that are not held are no error. SourceError as in `weeks`.
        """
        ...
