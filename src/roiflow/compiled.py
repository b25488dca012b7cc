"""Functions compiled by numba, kept between processes by what their code is, wherever it lies.

Numba's own cache lies beside the code, so each copy of it (a run's, a Bento's) compiles everything
anew: about 40 seconds of a core. And it compares a function's own file alone, not those that it
calls or has constants from.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator
from numba.misc.appdirs import AppDirs

F = TypeVar("F", bound=Callable[..., Any])

PACKAGE = Path(__file__).parent
_IMPORT = re.compile(
    rb"^\s*(?:from (roiflow[\w.]*) import (\([^)]*\)|.*)|import (roiflow[\w.]*))", re.MULTILINE
)


def compiled(**options: Any) -> Callable[[F], F]:
    """numba.njit with a cache on disk; without one where no folder of it can be written.

    The cache is in NUMBA_CACHE_DIR or the user's own cache folder. A user without either compiles
    anew in each process.
    """

    def of(function: F) -> F:
        # Nobody calls it from C: that wrapper would be compiled for every function, too.
        wanted = {"no_cfunc_wrapper": True, **options}
        made = njit(**wanted)(function)
        try:
            # In the place of `cache=True`, which would take numba's own locators.
            made._cache = _Cache(function)
        except RuntimeError as error:
            # Numba says in these words that no folder can be written; any other error is one.
            if "no locator available" not in str(error):
                raise
        kept: F = made
        return kept

    return of


class _ByContent(UserWideCacheLocator):
    """A folder for each content of a module and of all that it imports."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)  # type: ignore[no-untyped-call]
        config: Any = numba.config
        places: Any = AppDirs
        # Read as the function is made, so that a program may set it before it imports what is
        # compiled.
        root = config.CACHE_DIR or places("roiflow", appauthor=False).user_cache_dir
        module = Path(file)
        self._cache_path = str(Path(root) / f"{module.stem}-{digest_of(module)}")


class _Placed(CompileResultCacheImpl):
    _locator_classes = [_ByContent]  # noqa: RUF012


class _Cache(FunctionCache):
    _impl_class = _Placed

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        # Numba numbers its files; two processes that compile for other types at the same time
        # would write both under the same number, and one of them be taken for the other.
        own = f"{self._impl.filename_base}.{uuid4().hex[:8]}"
        self._cache_file._data_name_pattern = f"{own}.{{number:d}}.nbc"


@cache
def digest_of(module: Path) -> str:
    """Of a module's content and that of every module of the package that it can import."""
    seen, todo = set[Path](), [module]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(_read(path)[1])
    # The folder that the copy lies in is not part of the name.
    parts = sorted(f"{path.relative_to(PACKAGE)}:{_read(path)[0]}" for path in seen)
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _read(path: Path) -> tuple[str, tuple[Path, ...]]:
    """A module's own digest, and the modules of the package that it names in its imports."""
    content = path.read_bytes()
    return sha256(content).hexdigest(), tuple(_imports(content))


def _imports(content: bytes) -> Iterator[Path]:
    """By pattern: to parse the modules would take longer than to compile some of them."""
    for found in _IMPORT.finditer(content):
        module, names, whole = (part.decode() if part else "" for part in found.groups())
        base = PACKAGE.joinpath(*(module or whole).split(".")[1:])
        # An imported name is a module or something in one, which the text does not tell: what is
        # there as a file is a module.
        for place in (base, *(base / name for name in re.findall(r"\w+", names))):
            for path in (place.with_suffix(".py"), place / "__init__.py"):
                if path.is_file():
                    yield path
