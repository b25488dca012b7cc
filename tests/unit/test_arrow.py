import subprocess
import sys

PROGRAM = """
import sys
import pyarrow as pa
from roiflow.arrow import leave_pandas_out

leave_pandas_out()
table = pa.table({"a": pa.array([1, 2])})
assert "pandas" not in sys.modules
frame = table.to_pandas()
import pandas

assert isinstance(frame, pandas.DataFrame)
assert pa.Table.from_pandas(frame, preserve_index=False).equals(table)
"""


def test_arrays_are_made_without_pandas_and_frames_all_the_same() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
