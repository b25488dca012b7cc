"""Functions compiled by numba, kept between processes where there is a folder for them."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """numba.njit with a cache on disk; without one where no folder of it can be written.

    The cache lies beside the code, or in the user's own cache folder. A read-only install by a
    user without a home has neither: each process then compiles anew, which takes it seconds.
    """

    def of(function: F) -> F:
        try:
            made: F = njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            made = njit(**options)(function)
        return made

    return of
