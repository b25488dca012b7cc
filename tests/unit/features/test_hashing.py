import numpy as np
import pyarrow as pa
import pytest

from roiflow.features.hashing import HashIndex, IdCounter, hash_ids


def test_hashes_are_fnv_1a_with_a_final_mix() -> None:
    empty, a = 14695981039346656037, 0xAF63DC4C8601EC8C  # the published values for "" and "a"
    expected = [np.uint64(value ^ (value >> 29)).view(np.int64) for value in (empty, a)]
    assert hash_ids(pa.chunked_array([["", "a"]])).tolist() == [int(one) for one in expected]


def test_hashes_do_not_depend_on_slices_or_chunks() -> None:
    ids = pa.array([f"id {number}" for number in range(100)])
    split = pa.chunked_array([ids[:30], ids[30:31], ids[31:31], ids[31:]])
    assert hash_ids(split).tolist() == hash_ids(ids).tolist()
    assert hash_ids(ids[40:50]).tolist() == hash_ids(ids)[40:50].tolist()


def test_ids_are_found_and_others_are_not() -> None:
    ids = pa.array([f"u{number}" for number in range(10_000)])
    index = HashIndex(ids)
    order = np.random.default_rng(0).permutation(10_000)
    assert index.find(ids.take(pa.array(order))).tolist() == order.tolist()
    assert index.find(pa.array(["u10000", "", None, "u7"])).tolist() == [-1, -1, -1, 7]
    assert HashIndex(pa.array([], pa.string())).find(pa.array(["u1"])).tolist() == [-1]


def test_an_id_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 ids"):
        HashIndex(pa.array(["a", "b", "a"]))


def test_counts_are_those_of_a_dictionary() -> None:
    rng, counter = np.random.default_rng(1), IdCounter()
    expected: dict[str, tuple[int, int]] = {}
    for _ in range(5):
        names = [f"u{number}" for number in rng.integers(0, 3_000, 4_000)]
        known = rng.integers(0, 10**15, 4_000)
        for name, time in zip(names, known.tolist(), strict=True):
            rows, first = expected.get(name, (0, time))
            expected[name] = (rows + 1, min(first, time))
        with_null = pa.chunked_array([pa.array([*names, None])])
        counter.add(with_null, np.append(known, 0))
    found = counter.table().to_pydict()
    pairs = zip(found["count"], found["known_time"], strict=True)
    assert dict(zip(found["id"], pairs, strict=True)) == expected
