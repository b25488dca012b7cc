import numpy as np

from roiflow.simulator.noise import (
    GOLDEN,
    Stream,
    generator,
    key,
    mixed,
    normals,
    uniform,
    uniforms,
)


def test_uniforms_are_the_published_splitmix64() -> None:
    published = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], np.uint64)
    expected = ((published >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    np.testing.assert_array_equal(uniforms(np.uint64(0), np.arange(3)), expected)


def test_a_draw_depends_on_its_number_alone() -> None:
    family = key(7, Stream.CLICK, 3)
    whole = uniforms(family, np.arange(100))
    np.testing.assert_array_equal(uniforms(family, np.arange(40, 60)), whole[40:60])
    assert not np.any(uniforms(key(8, Stream.CLICK, 3), np.arange(100)) == whole)


def test_moments() -> None:
    family, count = key(1, Stream.REVENUE), 400_000
    uniform, normal = uniforms(family, np.arange(count)), normals(family, np.arange(count))
    assert uniform.min() > 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 * np.sqrt(1 / 12 / count)
    assert abs(normal.mean()) < 4 / np.sqrt(count)
    assert abs(normal.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(np.corrcoef(normal[1:], normal[:-1])[0, 1]) < 4 / np.sqrt(count)


def test_blocks_have_generators_of_their_own() -> None:
    draws = [generator(1, Stream.USERS, day).random() for day in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_no_bits_give_one() -> None:
    """The largest 53 bits and half a step round up to it in doubles."""
    top = np.uint64(2**64 - 1)
    assert 0 < uniform(np.uint64(0)) < uniform(top) == 1 - 2.0**-53
    # The family whose draw 0 has all bits set: SplitMix64's output function, run backwards.
    family = np.uint64((unmixed(2**64 - 1) - int(GOLDEN)) % 2**64)
    assert mixed(np.uint64(unmixed(2**64 - 1))) == top
    assert uniforms(family, np.array([0]))[0] == 1 - 2.0**-53


def unmixed(z: int) -> int:
    """What SplitMix64's output function makes `z` of."""
    z = unshifted(z, 31) * pow(0x94D049BB133111EB, -1, 2**64) % 2**64
    z = unshifted(z, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64
    return unshifted(z, 30)


def unshifted(z: int, by: int) -> int:
    """The number whose exclusive or with itself, shifted right, is `z`."""
    found = z
    for _ in range(64 // by):
        found = z ^ found >> by
    return found
