"""What may be an id, and every other name: one rule for every door.

A name has 1 to MAX_NAME characters, none of them a control character. An impression's id may be
longer by what `:<position>` adds to its request's. A name may be checked as it comes through a
socket, or with a column of millions.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c

MAX_NAME = 128
MAX_POSITION = 8
"""Characters that `:<position>` may add to a request's id."""

MAX_BYTES = 4 * (MAX_NAME + MAX_POSITION)
"""Of the longest name in UTF-8."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Arrow's expressions read UTF-8, which has no surrogates: those are looked for in Python's texts
# only.
_CONTROL_RE2 = r"[\x00-\x1f\x7f-\x{9f}]"


def has_control(text: str) -> bool:
    """Whether a text has NUL, another control character or half a surrogate pair."""
    return _CONTROL.search(text) is not None


def longest(column: str) -> int:
    """Characters that a name in a column of the contract may have."""
    return MAX_NAME + MAX_POSITION if column == c.IMPRESSION else MAX_NAME


def is_name(text: str, limit: int = MAX_NAME) -> bool:
    """Whether a text is a name of at most `limit` characters."""
    return 1 <= len(text) <= limit and not has_control(text)


def right(limit: int = MAX_NAME) -> str:
    """The rule in words."""
    return f"1 to {limit} characters, none of them a control character"


def no_names(texts: pa.ChunkedArray, limit: int = MAX_NAME) -> NDArray[np.bool_]:
    """True where a text (n,) is no name of at most `limit` characters; a null is no fault here."""
    if not _is_utf8(texts):
        return _one_by_one(texts, limit)
    size = pc.utf8_length(texts)
    bad = pc.or_(pc.equal(size, 0), pc.greater(size, limit))
    # The expression is the dear part, and hardly any column has a byte that calls for it.
    if any(map(_may_have_control, texts.chunks)):
        bad = pc.or_(bad, pc.match_substring_regex(texts, _CONTROL_RE2))
    flags: NDArray[np.bool_] = pc.fill_null(bad, False).to_numpy()
    return flags


def _is_utf8(texts: pa.ChunkedArray) -> bool:
    """Arrow trusts what a file says: bytes that are no text would end in a traceback later."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _one_by_one(texts: pa.ChunkedArray, limit: int) -> NDArray[np.bool_]:
    def bad(value: bytes | None) -> bool:
        if value is None:
            return False
        try:
            return not is_name(value.decode(), limit)
        except UnicodeDecodeError:
            return True

    # As bytes: one text that is not UTF-8 would end the conversion of the whole column.
    return np.fromiter(map(bad, texts.cast(pa.binary()).to_pylist()), np.bool_, len(texts))


def _may_have_control(chunk: pa.Array) -> bool:
    """Whether any byte may be of a control character: one pass, where an expression takes many."""
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return False
    # A slice shares its parent's buffers: only its own stretch of the text counts.
    edges = np.frombuffer(offsets, np.int32)[chunk.offset :][: len(chunk) + 1]
    text = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]]
    # In UTF-8 0xC2 begins U+0080 to U+009F, and other signs as well: it says perhaps, and the
    # expression decides.
    return bool(((text < 0x20) | (text == 0x7F) | (text == 0xC2)).any())
