"""What pyarrow loads besides itself."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas:
    """A finder that knows that there is no pandas."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        del path, target
        if name == "pandas":
            # None would only say that this finder has none, and the next one would find it.
            raise ModuleNotFoundError(name)
        return None


def leave_pandas_out() -> None:
    """Spare the process pandas, half a second that no stage needs.

    pyarrow imports pandas, if it is there, at the first array that it makes of Python's values, to
    know a data frame when it sees one. It asks once, so the answer is given here. Whoever hands
    pyarrow data frames imports pandas before; `to_pandas` works in any case.
    """
    if "pyarrow" not in sys.modules or "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    # For the length of one call: whoever imports pandas after it gets it.
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)
