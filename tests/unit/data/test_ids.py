import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roiflow import columns as c
from roiflow.data.ids import MAX_BYTES, is_name, longest, no_names

KNOWN = [
    ("a", True),
    ("", False),
    ("x" * 128, True),
    ("x" * 129, False),
    ("\u20ac" * 128, True),  # characters, not bytes
    ("\u20ac" * 129, False),
    ("a\0", False),
    ("\n", False),
    ("a\x7fb", False),
    ("\x85", False),
    ("\xa0", True),  # no control character, though its first byte is theirs
    ("\u00e9", True),
    ("\U0001f701", True),
]


@pytest.mark.parametrize(("text", "good"), KNOWN)
def test_a_name_is_1_to_128_characters_without_control(text: str, good: bool) -> None:
    assert is_name(text) == good
    column = pa.chunked_array([["fine"], [text], []], pa.string())
    assert no_names(column).tolist() == [False, not good]


def test_a_column_is_judged_as_its_texts_are() -> None:
    texts = [text for text, _ in KNOWN]
    column = pa.chunked_array([pa.array(["\0", *texts, None]).slice(1)])
    assert no_names(column).tolist() == [*(not good for _, good in KNOWN), False]


def test_an_impression_may_add_its_position() -> None:
    assert longest(c.IMPRESSION) == 128 + len(":1234567")
    assert no_names(pa.chunked_array([["x" * 136, "x" * 137]]), 136).tolist() == [False, True]
    assert len("\U0001f701".encode()) * 136 == MAX_BYTES


def test_bytes_that_are_no_text_are_no_name() -> None:
    raw = pa.array([b"a", b"\xff", None, b"", b"\xc3\xa9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    assert no_names(pa.chunked_array([text])).tolist() == [False, True, False, True, False]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=140)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_one_by_one_or_at_once(texts: list[str]) -> None:
    found = no_names(pa.chunked_array([texts], pa.string()))
    assert found.tolist() == [not is_name(text) for text in texts]
    assert found.dtype == np.bool_
