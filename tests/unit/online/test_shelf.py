"""A catalogue in a package's indices: rows for what is newer, the same wherever it is read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from roiflow import columns as c
from roiflow.catalogue.catalogue import Catalogue
from roiflow.catalogue.eligibility import Pacing
from roiflow.catalogue.updates import CHANGE, TEXTS, UPDATE, UPDATES
from roiflow.errors import ServiceError
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built
from roiflow.online.shelf import Shelf, known_ads
from tests.unit.serving.packages import TinyWorld


@pytest.fixture(scope="module")
def built(world: TinyWorld) -> Built:
    return world.built


def upserts(built: Built, *ads: str, at: int = 5) -> pa.Table:
    """Ads of the first known campaign, and of a category that nobody knows."""
    campaign = built.vocabulary.ids("campaign")[0].as_py()
    rows = [
        dict.fromkeys(TEXTS, "unheard-of")
        | {CHANGE: "upsert", UPDATE: f"{ad}-{at}", c.AD: ad, c.CAMPAIGN: campaign}
        | {c.EVENT_TIME: at, c.KNOWN_TIME: at, c.PRICE: 7, c.BID: 3}
        for ad in ads
    ]
    return pa.Table.from_pylist(rows, schema=UPDATES)


def bare(built: Built) -> Shelf:
    return Shelf.bare(built.engine.plan, built.vocabulary)


def known(built: Built, count: int) -> Sequence[str]:
    names: list[str] = built.vocabulary.ids("ad").to_pylist()[:count]
    return names


def test_a_known_ad_has_its_own_row_and_a_new_one_the_next(built: Built) -> None:
    size = built.vocabulary.size("ad")
    shelf = bare(built).merged(upserts(built, "zz", *known(built, 2), "zy"))
    assert shelf.catalogue.ad_id.to_pylist() == sorted([*known(built, 2), "zy", "zz"])
    assert sorted(shelf.ad.tolist()) == [1, 2, size, size + 1]
    assert shelf.newer == ("zy", "zz")
    new = shelf.attributes[shelf.ad >= size]
    assert_array_equal(new, [[1, 0, 0, 0, 0]] * 2)
    assert_array_equal(shelf.attributes[shelf.ad == 1], built.engine.plan.attributes[1:2])
    assert sorted(known_ads(shelf, built.engine.plan).tolist()) == [0, 0, 1, 2]
    assert shelf.plan.sizes["ad"] == size + 2 == shelf.plan.attributes.shape[0]


def test_rows_stay_whatever_comes_later(built: Built) -> None:
    first = bare(built).merged(upserts(built, "m"))
    later = first.merged(upserts(built, "a", "z", at=9))
    assert later.newer == ("m", "a", "z")
    assert first.newer == ("m",)


def test_who_reads_it_has_the_same(built: Built) -> None:
    written = bare(built).of(Catalogue.empty(), Pacing.of(np.arange(24.0)))
    written = written.merged(upserts(built, "m")).merged(upserts(built, "a", at=9))
    for reader in (bare(built), bare(built).merged(upserts(built, "m"))):
        found = reader.read(written.value())
        assert found.newer == written.newer
        assert_array_equal(found.ad, written.ad)
        assert_array_equal(found.plan.attributes, written.plan.attributes)
        assert_array_equal(found.pacing.shares, written.pacing.shares)
        assert found.value() == written.value()


def test_a_store_that_began_anew_gives_rows_out_anew(built: Built) -> None:
    reader = bare(built).merged(upserts(built, "m"))
    found = reader.read(bare(built).merged(upserts(built, "q")).value())
    assert found.newer == ("q",)
    assert found.plan.sizes["ad"] == built.vocabulary.size("ad") + 1


def test_an_older_package_keeps_the_rows_of_the_snapshots_vocabulary(built: Built) -> None:
    """The counters are in the newer vocabulary's rows: what it has beyond the package's stay so."""
    size = built.vocabulary.size("ad")
    names = built.vocabulary.ids("ad").to_pylist()
    old = Vocabulary(
        {
            kind: built.vocabulary.ids(kind)[: size - 3 if kind == "ad" else None]
            for kind in built.vocabulary.kinds
        }
    )
    plan = built.engine.plan
    shorter = replace(plan, sizes={**plan.sizes, "ad": size - 2}, attributes=plan.attributes[:-2])
    catalogue = Catalogue.of_sound(upserts(built, "new", names[-1]))
    shelf = Shelf.bare(shorter, old).of(catalogue, Pacing.none(), names[size - 3 :])
    assert shelf.newer == (*names[-2:], "new")
    assert sorted(shelf.ad.tolist()) == [size - 1, size]


def test_what_is_no_catalogue_is_named(built: Built) -> None:
    with pytest.raises(ServiceError, match="the online store's catalogue cannot be read"):
        bare(built).read(b"no catalogue")
