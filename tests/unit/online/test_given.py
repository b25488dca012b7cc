"""Vectors: what goes in comes out, equal inputs have equal hashes, every change has another."""

from dataclasses import replace

import numpy as np
import pytest

from roiflow.errors import ContractError
from roiflow.online.given import Inputs, Shape, differences, hashes, pack, sampled, unpack

NAMES = ("ctr", "clicks")
SHAPE = Shape(profile=2, history=3, slots=2, dense_names=NAMES)


def inputs(rows: int = 4, seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)

    def ints(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        return rng.integers(0, 1 << 31, (rows, *shape)).astype(np.int32)

    return Inputs(
        user=ints(),
        profile=ints(2),
        history_ad=ints(3),
        history_category=ints(3),
        history_action=ints(3),
        history_time=rng.integers(0, 1 << 62, (rows, 3)),
        context=ints(4),
        dense=rng.normal(size=(rows, 2, 2)).astype(np.float32),
    )


def test_what_is_packed_is_unpacked() -> None:
    given = inputs()
    vectors = pack(given)
    assert vectors.shape == (4, SHAPE.bytes)
    found = unpack([row.tobytes() for row in vectors], SHAPE)
    for name, values in vars(given).items():
        np.testing.assert_array_equal(getattr(found, name), values)


def test_a_vector_of_another_size_is_named() -> None:
    with pytest.raises(ContractError, match=r"vector 1: 3 bytes, expected \d+"):
        unpack([pack(inputs(1))[0].tobytes(), b"abc"], SHAPE)


def test_without_profile_attributes_there_is_a_vector() -> None:
    bare = replace(inputs(), profile=np.zeros((4, 0), np.int32))
    shape = replace(SHAPE, profile=0)
    found = unpack([row.tobytes() for row in pack(bare)], shape)
    np.testing.assert_array_equal(found.dense, bare.dense)


@pytest.mark.parametrize("name", vars(inputs()))
def test_any_bit_changes_the_hash(name: str) -> None:
    given = inputs()
    changed = getattr(given, name).copy()
    changed.view(np.uint8).ravel()[-1] ^= 1  # in the last request
    before, after = hashes(pack(given)), hashes(pack(replace(given, **{name: changed})))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True] * 3 + [False]
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in before)


def test_differences_name_feature_row_and_place() -> None:
    given = inputs()
    dense, ads = given.dense.copy(), given.history_ad.copy()
    dense[2, 1, 0] += 0.5
    dense[1, 0, 1] = 7
    ads[3, 2] = 9
    other = replace(given, dense=dense, history_ad=ads, user=given.user + np.int32(1))
    every = np.ones((4, 2), bool)
    found = {
        (one.feature, one.request, one.slot): one for one in differences(other, given, NAMES, every)
    }
    assert set(found) == {("user", row, -1) for row in range(4)} | {
        ("history_ad", 3, 2),
        ("clicks", 1, 0),
        ("ctr", 2, 1),
    }
    assert found["ctr", 2, 1].size == pytest.approx(0.5, rel=1e-6)
    assert found["clicks", 1, 0].served == 7
    every[2] = False  # whose item counters were not final
    assert ("ctr", 2, 1) not in {
        (one.feature, one.request, one.slot) for one in differences(other, given, NAMES, every)
    }
    assert not list(differences(given, given, NAMES, every))


def test_the_same_requests_are_sampled_everywhere() -> None:
    names = [f"2026-W04-{number:010d}" for number in range(20_000)]
    kept = {name for name in names if sampled(name, 0.1)}
    assert 0.09 < len(kept) / len(names) < 0.11
    assert kept <= {name for name in names if sampled(name, 0.2)}
    assert not any(sampled(name, 0.0) for name in names)
    assert all(sampled(name, 1.0) for name in names)
