"""What every source gives."""

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
