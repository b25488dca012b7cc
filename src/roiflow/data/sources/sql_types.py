"""Batches as a database driver gives them, cast to the types of the data contract."""

import pyarrow as pa
import pyarrow.compute as pc

from roiflow.data.schemas import TIME


def fit(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in exactly these types; no value changes.

    A whole number becomes a time as microseconds since the epoch, and a flag if it is 0 or 1; a
    time without zone is UTC. Raises ArrowInvalid, naming the column, where a value does not fit.
    """
    columns = [_cast(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        if pa.types.is_boolean(field.type) and pa.types.is_integer(column.type):
            return _flags(column)
        if field.type == TIME and pa.types.is_timestamp(column.type) and column.type.tz is None:
            return column.cast(pa.timestamp("us")).cast(TIME)
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        text = f"column {field.name!r} does not fit {field.type}: {error}"
        raise pa.ArrowInvalid(text) from None


def _flags(column: pa.Array) -> pa.Array:
    values = column.cast(pa.int64())
    odd = pc.drop_null(values).filter(pc.invert(pc.is_in(pc.drop_null(values), pa.array([0, 1]))))
    if len(odd):
        raise pa.ArrowInvalid(f"value {odd[0].as_py()} is neither 0 nor 1")
    return values.cast(pa.bool_())
