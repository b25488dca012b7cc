"""The two inputs of the ranker in its serving form, built in numpy; needs no torch.

The user encoder runs once per request (or per user and event), the scorer once per request for all
candidates. Both are exported to ONNX with these very input names. All index tensors are int64, all
others float32. Histories are right-aligned: the most recent event is last, `length` of the L
columns hold events, the others hold zeros.

User encoder: history_ad, history_category, history_action (B, L), history_hours (B, L): hours from
the event to the newest event of the row, length (B,)
-> memory (B, L, M).

Scorer: memory (B, L, M), history_ad, history_category (B, L), elapsed_hours (B, L): hours from the
event to the request, length (B,), user (B,), profile (B, P), context (B, 4), ad (B, K),
attributes (B, K, 5), dense (B, K, F), raw
-> predictions (B, K, 3): calibrated P(click), P(click and conversion), E[revenue | conversion] in
units of the currency (not micros: float32 would lose their parity).

Times are cut to ticks of 1/1024 hour (3.5 s), which float32 holds exactly up to 1.8 years, so a
gap is the same number whatever it is measured from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.features.table import (
    AD_ATTRIBUTES,
    CONTEXT,
    Events,
    Features,
    Ints,
    Longs,
    Requests,
    Singles,
)
from roiflow.ranking.protocol import Predictions

ENCODER_INPUTS = ("history_ad", "history_category", "history_action", "history_hours", "length")
SCORER_INPUTS = (
    "memory",
    "history_ad",
    "history_category",
    "elapsed_hours",
    "length",
    "user",
    "profile",
    "context",
    "ad",
    "attributes",
    "dense",
)
ENCODER_OUTPUT = "memory"
SCORER_OUTPUT = "predictions"

# An hour over 1024, which is whole; float32 has every whole number up to MAX_TICKS.
MICROS_PER_TICK = 3_515_625
TICKS_PER_HOUR = 1024
MAX_TICKS = 2**24 - 1
MICROS_PER_UNIT = 1_000_000

Feed = dict[str, NDArray[np.generic]]


def encode_length(layers: int, history_length: int) -> int:
    """Events the encoder must see so that the last H memories are exact.

    `layers` counts the candidates' cross-attention, each layer reaches H - 1 events further back.
    """
    return layers * (history_length - 1) + 1


def hours(earlier: Longs, later: Longs) -> Singles:
    """Hours between two times in micros, cut to whole ticks; at least 0."""
    ticks = later // MICROS_PER_TICK - earlier // MICROS_PER_TICK
    return (np.clip(ticks, 0, MAX_TICKS) / TICKS_PER_HOUR).astype(np.float32)


@dataclass(frozen=True)
class Sizes:
    """Rows of each embedding table of a model."""

    user: int
    ad: int
    category: int
    action: int
    profile: Longs  # (P,)
    context: Longs  # (4,)
    attributes: Longs  # (5,)

    @classmethod
    def of(cls, sizes: Mapping[str, int], profile_names: Sequence[str]) -> "Sizes":
        """From `Features.sizes` and `Features.profile_names`, or a manifest's."""
        return cls(
            sizes["user"],
            sizes["ad"],
            sizes["category"],
            sizes["action"],
            np.array([sizes[f"profile:{name}"] for name in profile_names], np.int64),
            np.array([sizes[name] for name in CONTEXT], np.int64),
            np.array([sizes[name] for name in AD_ATTRIBUTES], np.int64),
        )


def known(index: Ints | Longs, size: int | Longs) -> Longs:
    """Indices beyond `size` rows (ids newer than the model) and below 0 -> 0, out of vocabulary."""
    return np.where((index >= 0) & (index < size), index, 0).astype(np.int64)


@dataclass(frozen=True)
class Histories:
    """Right-aligned histories of B users; a column before the last `length` holds zeros."""

    ad: Ints  # (B, L)
    category: Ints  # (B, L)
    action: Ints  # (B, L)
    event_time: Longs  # (B, L) micros
    length: Longs  # (B,)

    def take(self, rows: Longs) -> "Histories":
        """The histories `rows`, in that order."""
        return Histories(**{name: values[rows] for name, values in vars(self).items()})

    def cut(self, most: int) -> "Histories":
        """The last columns: as many as the longest history fills, at least 1 and at most `most`."""
        width = min(max(1, int(self.length.max(initial=0))), most, self.ad.shape[1])
        return Histories(
            self.ad[:, -width:],
            self.category[:, -width:],
            self.action[:, -width:],
            self.event_time[:, -width:],
            self.length,
        )


@dataclass(frozen=True)
class People:
    """What is known of the users of B requests, in the form the models take."""

    user: Ints  # (B,) dense index
    profile: Ints  # (B, P)
    history: Histories  # (B, L)

    def take(self, rows: Longs) -> "People":
        """The users of the requests `rows`, in that order."""
        return People(self.user[rows], self.profile[rows], self.history.take(rows))


def people(features: Features, requests: Requests, width: int) -> People:
    """Users as known at each request, with their last `width` events."""
    return People(
        requests.user,
        features.profile[requests.user],
        histories(features.events, requests.user, requests.history_end, width),
    )


def distinct(history: Histories) -> tuple[Histories, Longs]:
    """The different ones of B histories, and which of them each one is (B,).

    What a user did before is the same for all requests of a page view, and the encoder is the
    larger half of a request's cost: it need run once for all of them.
    """
    rows = history.length.size
    if rows == 1:
        return history, np.zeros(1, np.int64)
    # A history as one value of so many bytes: what is equal is found by one sort, and whatever lies
    # before its events is 0 in all.
    whole = bytes_of(history)
    _, first, back = np.unique(
        whole.view(f"V{whole.shape[1]}")[:, 0], return_index=True, return_inverse=True
    )
    return history.take(first), back


def bytes_of(history: Histories) -> NDArray[np.uint8]:
    """B histories as so many bytes each (B, W)."""
    parts = [
        np.ascontiguousarray(values).reshape(history.length.size, -1).view(np.uint8)
        for values in vars(history).values()
    ]
    return np.concatenate(parts, axis=1)


def histories(events: Events, user: Ints, history_end: Longs, width: int) -> Histories:
    """The last `width` events before row `history_end` (B,) of each user (B,)."""
    start = np.maximum(events.offsets[user], history_end - width)
    length = history_end - start
    row = history_end[:, None] - width + np.arange(width)
    inside = row >= start[:, None]
    row = np.where(inside, row, 0)

    def take(column: NDArray[Any]) -> NDArray[Any]:
        # A log without events has no row 0 to read.
        if column.size == 0:
            return np.zeros(row.shape, column.dtype)
        return np.where(inside, column[row], 0).astype(column.dtype)

    return Histories(
        take(events.ad),
        take(events.category),
        take(events.action),
        take(events.event_time),
        length,
    )


def encoder_inputs(history: Histories, sizes: Sizes) -> Feed:
    """What the user encoder takes; the newest event is the one known last."""
    newest = history.event_time[:, -1:]
    filled = _filled(history)
    return {
        "history_ad": known(history.ad, sizes.ad),
        "history_category": known(history.category, sizes.category),
        "history_action": known(history.action, sizes.action),
        "history_hours": np.where(filled, signed_hours(history.event_time, newest), 0).astype(
            np.float32
        ),
        "length": history.length.astype(np.int64),
    }


def signed_hours(earlier: Longs, later: Longs) -> Singles:
    """Hours between two times in micros, cut to whole ticks; negative where out of order."""
    ticks = later // MICROS_PER_TICK - earlier // MICROS_PER_TICK
    return (np.clip(ticks, -MAX_TICKS, MAX_TICKS) / TICKS_PER_HOUR).astype(np.float32)


def _filled(history: Histories) -> NDArray[np.bool_]:
    width = history.ad.shape[1]
    return np.arange(width) >= width - history.length[:, None]


def scorer_inputs(requests: Requests, people: People, attributes: Ints, sizes: Sizes) -> Feed:
    """What Scorer takes, but for the memory; `attributes` (B, K, 5) are of the candidates.

    Vocabularies only grow; an index newer than the model becomes 0, as does that of no candidate.
    """
    history = people.history
    return {
        "history_ad": known(history.ad, sizes.ad),
        "history_category": known(history.category, sizes.category),
        "elapsed_hours": np.where(
            _filled(history), hours(history.event_time, requests.event_time[:, None]), 0
        ).astype(np.float32),
        "length": history.length.astype(np.int64),
        "user": known(people.user, sizes.user),
        "profile": known(people.profile, sizes.profile),
        "context": known(requests.context, sizes.context),
        "ad": known(requests.ad, sizes.ad),
        "attributes": known(attributes, sizes.attributes),
        "dense": np.ascontiguousarray(requests.dense, np.float32),
    }


def predictions(output: Singles, candidate: NDArray[np.bool_]) -> Predictions:
    """The scorer's (B, K, 3) -> Predictions (B, K) in micros, 0 where there is no candidate."""
    kept = np.where(candidate[..., None], output, np.float32(0))
    return Predictions(
        np.ascontiguousarray(kept[..., 0]),
        np.ascontiguousarray(kept[..., 1]),
        kept[..., 2] * np.float32(MICROS_PER_UNIT),
    )


def in_parts(
    requests: Requests, length: Longs, step: int, predict: Callable[[Longs], Predictions]
) -> Predictions:
    """Predictions (B, K) of parts of at most `step` requests, given as rows; in their own order.

    Histories of about equal `length` (B,) stand together, so that few columns of a part are empty.
    """
    # Within a length by user and how far is seen: requests of one page view meet in a part, where
    # their history is encoded once.
    order = np.lexsort((requests.history_end, requests.user, length))
    parts = [predict(order[at : at + step]) for at in range(0, order.size, step)]
    back = np.argsort(order)
    return Predictions(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])[back]
            for field in fields(Predictions)
        )
    )
