"""Fingerprints of files: what a source's `state` is made of."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from roiflow.data.weeks import Week
from roiflow.errors import SourceError


def of_files(folder: Path, paths: Iterable[Path]) -> str:
    """Names, relative to `folder`, and contents of files, in any order; 64 hex digits.

    A file that is not there is left out. SourceError, naming it, where one cannot be read.
    """
    found = hashlib.sha256()
    for path in sorted(set(paths)):
        try:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from None
        # A NUL ends the name and a digest has one length: no two listings read alike.
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return found.hexdigest()


def of_partitions(folder: Path, weeks: Sequence[Week], before: int) -> str:
    """Of the lake's partitions of `weeks` and of as many weeks before, whose late rows come."""
    wanted = {f"week={week}" for week in weeks[-1].window(len(weeks) + before)}
    return of_files(folder, (p for p in folder.rglob("*.parquet") if p.parent.name in wanted))
