import numpy as np

from roiflow.simulator.noise import Stream, generator, key, normals, uniforms


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
