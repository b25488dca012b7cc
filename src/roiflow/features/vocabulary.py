"""Ids to dense indices, append-only: week t + 1 never re-numbers what week t numbered.

Index 0 of every kind is the out-of-vocabulary row. New ids follow the published ones, ordered by
the time they first became known, then by id: ids known before a time t are a prefix.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from roiflow.errors import ContractError
from roiflow.features.hashing import HashIndex
from roiflow.features.table import Ints
from roiflow.files import write_file

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), False),
        pa.field("id", pa.string(), False),
        pa.field("index", pa.int32(), False),
    ]
)


_SEEN = pa.schema([("id", pa.string()), ("known_time", pa.int64()), ("count", pa.int64())])


class Vocabulary:
    """The ids of each kind (user, ad, action, ...) in the order of their indices 1, 2, ..."""

    def __init__(self, ids: Mapping[str, pa.StringArray]) -> None:
        self._ids = dict(ids)
        self._lookups: dict[str, dict[str, int]] = {}
        self._indices: dict[str, HashIndex] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind, sorted."""
        return tuple(sorted(self._ids))

    def ids(self, kind: str) -> pa.StringArray:
        """(size - 1,): the id with index i is at i - 1."""
        return self._ids.get(kind, pa.array([], pa.string()))

    def size(self, kind: str) -> int:
        """Rows, the out-of-vocabulary row included."""
        return len(self.ids(kind)) + 1

    def index(self, kind: str, values: pa.Array | pa.ChunkedArray) -> Ints:
        """Ids (n,) -> dense indices (n,); 0 where unknown or null. For whole columns."""
        if kind not in self._indices:
            self._indices[kind] = HashIndex(self.ids(kind))
        # -1 becomes 0, the out-of-vocabulary row. A 32-bit 1, or the array would be 64 bits wide.
        return self._indices[kind].find(values.cast(pa.string())) + np.int32(1)

    def lookup(self, kind: str) -> dict[str, int]:
        """id -> dense index, as a dictionary made once. For a few ids at a time."""
        if kind not in self._lookups:
            self._lookups[kind] = {
                name: index for index, name in enumerate(self.ids(kind).to_pylist(), 1)
            }
        return self._lookups[kind]

    def appended(self, kind: str, ids: pa.ChunkedArray) -> "Vocabulary":
        """With ids that it does not have yet, in this order."""
        added = pa.concat_arrays(ids.cast(pa.string()).chunks or [pa.array([], pa.string())])
        longer = Vocabulary({**self._ids, kind: pa.concat_arrays([self.ids(kind), added])})
        # What was made of the other kinds is as good as new: of a million users it takes a while.
        for name in self._ids.keys() - {kind}:
            if name in self._lookups:
                longer._lookups[name] = self._lookups[name]
            if name in self._indices:
                longer._indices[name] = self._indices[name]
        return longer

    def new(self, kind: str, seen: Iterable[pa.Table], min_count: int) -> pa.Table:
        """New ids in the order of their indices: columns `id`, and `known_time` when first known.

        `seen` are tables of columns `id`, `known_time` and `count`, the rows that each stands for.
        """
        total = (
            pa.concat_tables([_SEEN.empty_table(), *(table.cast(_SEEN) for table in seen)])
            .group_by("id")
            .aggregate([("known_time", "min"), ("count", "sum")])
        )
        # Without those that are published: theirs stay, however often they are seen now.
        new = pc.is_null(pc.index_in(total["id"], value_set=self.ids(kind)))
        often = pc.greater_equal(total["count_sum"], min_count)
        return (
            total.filter(pc.and_(pc.and_(new, often), pc.is_valid(total["id"])))
            .select(["id", "known_time_min"])
            .rename_columns(["id", "known_time"])
            .sort_by([("known_time", "ascending"), ("id", "ascending")])
        )

    def table(self) -> pa.Table:
        """Columns kind, id, index; ordered by kind, then index."""
        return pa.concat_tables(
            [SCHEMA.empty_table()]
            + [
                pa.table(
                    [
                        pa.repeat(pa.scalar(kind, pa.string()), len(self.ids(kind))),
                        self.ids(kind),
                        pa.array(np.arange(1, self.size(kind), dtype=np.int32)),
                    ],
                    schema=SCHEMA,
                )
                for kind in self.kinds
            ]
        )

    def write(self, path: Path) -> None:
        """Atomically, as Parquet."""
        with write_file(path) as aside:
            # No dictionary: within a kind every id is another one.
            pq.write_table(self.table(), aside, compression="zstd", use_dictionary=False)

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Raises ContractError, naming file, kind and value, where it is not dense from 1."""
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: cannot read the vocabulary: {error}") from None
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise ContractError(f"{path}: the vocabulary has no column {', '.join(missing)}")
        try:
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (ValueError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: {error}") from None
        # Checked and not trusted: a gap or a second index would shift every embedding after it.
        table = table.sort_by([("kind", "ascending"), ("index", "ascending")])
        kinds: list[str] = pc.unique(table["kind"]).to_pylist()
        return cls({kind: _dense(path, kind, table) for kind in kinds})


def _dense(path: Path, kind: str, table: pa.Table) -> pa.StringArray:
    rows = table.filter(pc.equal(table["kind"], kind))
    index = rows["index"].to_numpy()
    wrong = np.flatnonzero(index != np.arange(1, index.size + 1))
    if wrong.size:
        first = int(wrong[0])
        raise ContractError(
            f"{path}: vocabulary of {kind!r}: index {index[first]} of id "
            f"{rows['id'][first].as_py()!r} where {first + 1} was expected"
        )
    counts = pc.value_counts(rows["id"])
    twice = [count["values"] for count in counts.to_pylist() if count["counts"] > 1]
    if twice:
        raise ContractError(f"{path}: vocabulary of {kind!r}: id {twice[0]!r} has two indices")
    ids = rows["id"].combine_chunks()
    return ids if isinstance(ids, pa.Array) else pa.concat_arrays(ids.chunks)
