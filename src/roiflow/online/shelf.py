"""A catalogue in a package's indices, with rows for the ads that the package does not know.

A model has learnt nothing of an ad that is newer than its package: it takes index 0 for it, and
its category, campaign, advertiser, brand and type by the vocabulary. What is counted is another
matter: a new ad has a row of its own beyond the package's, so that it gets a history of its own
from its first hour on. Rows are given out by the store's one writer, in the order of arrival, and
kept with the catalogue, so that every reader has the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow.catalogue.catalogue import Catalogue
from roiflow.catalogue.eligibility import Pacing
from roiflow.catalogue.updates import TEXTS, UPDATES
from roiflow.errors import ServiceError
from roiflow.features.plan import Plan
from roiflow.features.table import AD_ATTRIBUTES, Ints
from roiflow.features.vocabulary import Vocabulary

_KINDS = dict(zip(TEXTS, AD_ATTRIBUTES, strict=True))
"""Kinds of the vocabulary by column."""


@dataclass(frozen=True)
class Shelf:
    """The ads (A,) of a catalogue as a package's models and counters take them."""

    catalogue: Catalogue
    pacing: Pacing
    newer: tuple[str, ...]
    """Ads that the package does not know, in the order of their rows beyond its own."""
    plan: Plan
    """The package's, with rows for the newer ones."""
    vocabulary: Vocabulary
    ad: Ints
    """(A,) rows of `plan` and `vocabulary`."""
    package: tuple[Plan, Vocabulary]
    """As the package has them."""

    @classmethod
    def bare(cls, plan: Plan, vocabulary: Vocabulary) -> "Shelf":
        """Of a package, before there is a catalogue."""
        nothing = np.zeros(0, np.int32)
        return cls(
            Catalogue.empty(), Pacing.none(), (), plan, vocabulary, nothing, (plan, vocabulary)
        )

    def of(self, catalogue: Catalogue, pacing: Pacing, newer: Sequence[str] = ()) -> "Shelf":
        """Another catalogue; `newer` are all ads that have rows already, this one's first."""
        shelf = self._with(catalogue, newer[len(self.newer) :])
        ad = shelf.vocabulary.index("ad", catalogue.ad_id)
        unknown = catalogue.ad_id.filter(pa.array(ad == 0)).to_pylist()
        if unknown:
            shelf = shelf._with(catalogue, unknown)
            ad = shelf.vocabulary.index("ad", catalogue.ad_id)
        return replace(shelf, catalogue=catalogue, pacing=pacing, ad=ad)

    def merged(self, updates: pa.Table) -> "Shelf":
        """With further changes, which were checked when they were taken."""
        whole = pa.concat_tables([self.catalogue.updates, updates.cast(UPDATES)])
        return self.of(Catalogue.of_sound(whole), self.pacing)

    def _with(self, catalogue: Catalogue, newer: Sequence[str]) -> "Shelf":
        if not newer:
            return self
        names = pa.array(newer, pa.string())
        rows = pc.index_in(names, value_set=catalogue.ad_id)
        attributes = np.column_stack(
            [
                self.vocabulary.index(kind, catalogue.texts[name].take(rows))
                for name, kind in _KINDS.items()
            ]
        )
        return replace(
            self,
            newer=(*self.newer, *newer),
            plan=self.plan.with_ads(attributes),
            vocabulary=self.vocabulary.appended("ad", pa.chunked_array([names])),
        )

    @property
    def attributes(self) -> Ints:
        """(A, 5) as the vocabulary has them; 0 is a value that the package does not know."""
        return self.plan.attributes[self.ad]

    @property
    def size(self) -> int:
        """Ads, those included that have ended."""
        return self.catalogue.size

    def value(self) -> bytes:
        """As a store keeps it."""
        about = {"newer": self.newer, "pacing": self.pacing.shares.tolist()}
        table = self.catalogue.updates.replace_schema_metadata({"shelf": json.dumps(about)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def read(self, value: bytes) -> "Shelf":
        """The shelf that `value` was made of, for this one's package."""
        try:
            table = pa.ipc.open_stream(value).read_all()
            about = json.loads((table.schema.metadata or {})[b"shelf"])
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise ServiceError(f"the online store's catalogue cannot be read: {error}") from None
        pacing = Pacing(np.array(about["pacing"], np.float64))
        # Rows that were given out stay, unless the store began anew and gave out others.
        same = tuple(about["newer"][: len(self.newer)]) == self.newer
        start = self if same else Shelf.bare(*self.package)
        return start.of(Catalogue.of_sound(table.replace_schema_metadata()), pacing, about["newer"])


def version(value: bytes) -> bytes:
    """What changes with a shelf's value."""
    return blake2b(value, digest_size=8).hexdigest().encode()


def known_ads(shelf: Shelf, plan: Plan) -> Ints:
    """(A,) the index that the models of a package with `plan` take; 0 where it has none."""
    return np.where(shelf.ad < plan.sizes["ad"], shelf.ad, 0).astype(np.int32)
