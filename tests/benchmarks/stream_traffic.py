"""A realistic mix for the stream's measurements, and a plan that knows its users and ads.

Of 100 events 60 are impressions, in slates of three, 5 clicks, 1 a conversion and 34 behaviours.
`python -m tests.benchmarks.stream_traffic FOLDER RATE SECONDS` writes so many a second to a log.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow.data.weeks import MICROS_PER_SECOND
from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary
from roiflow.stream.events import Behaviour, Click, Conversion, Event, Shown, Slate
from tests.streams import payload

USERS, ADS, CATEGORIES = 10_000, 1_000, 40
ACTIONS = ("view", "cart", "like")


def write_features(folder: Path) -> None:
    """Plan and vocabulary of a world without a past."""
    counts = {
        "user": USERS, "ad": ADS, "action": len(ACTIONS), "placement": 2, "device": 2,
        "campaign": 200, "advertiser": 50, "category": CATEGORIES, "brand": 30, "ad_type": 3,
    }  # fmt: skip
    names = {kind: [f"{kind}{number}" for number in range(n)] for kind, n in counts.items()}
    names["action"] = list(ACTIONS)
    sizes = {kind: len(ids) + 1 for kind, ids in names.items()}
    ad = np.arange(ADS)
    kinds = ("campaign", "advertiser", "category", "brand", "ad_type")
    attributes = np.column_stack([ad % counts[kind] + 1 for kind in kinds])
    plan = Plan(
        prior_strength=20.0,
        ctr=0.08,
        cvr=0.2,
        value=5e6,
        history_length=50,
        sizes=sizes,
        profile_names=(),
        known_before_test=sizes,
        attributes=np.vstack([np.zeros((1, 5)), attributes]).astype(np.int32),
    )
    folder.mkdir(parents=True)
    plan.write(folder / "plan.parquet")
    Vocabulary({kind: pa.array(ids) for kind, ids in names.items()}).write(
        folder / "vocabulary.parquet"
    )


def mixed(rng: np.random.Generator, events: int, start: int, rate: float, name: str) -> list[bytes]:
    """About so many events, `rate` a second from `start` (microseconds) on, as messages in order.

    An impression is an event, three are a message; so there are 0.6 times as many messages.
    """
    slates = events // 5
    step = 5 * MICROS_PER_SECOND / rate
    made: list[tuple[float, Event]] = []
    users = rng.integers(USERS, size=(slates, 3)).tolist()
    steps = np.arange(5) * rng.integers(1, ADS // 5, size=(slates, 1))  # an ad is once in a slate
    ads = ((rng.integers(ADS, size=(slates, 1)) + steps) % ADS).tolist()
    chances = rng.random((slates, 4)).tolist()
    for number in range(slates):
        at = start + int(number * step)
        made.append((at, slate(f"{name}{number}", at, users[number][0], ads[number][:3])))
        if chances[number][0] < 0.25:
            shown = f"{name}{number}:1"
            made.append((at + 5e6, Click(impression_id=shown, event_time=at, known_time=at + 1)))
            if chances[number][1] < 0.2:
                sold = Conversion(
                    impression_id=shown, revenue_micros=3_000_000, event_time=at, known_time=at + 2
                )
                made.append((at + 9e6, sold))
        for place in range(1 + (chances[number][2] < 0.7)):
            behaved = behaviour(
                f"{name}b{number}.{place}", at, users[number][1 + place], ads[number][3 + place]
            )
            made.append((at, behaved))
    return [payload(event) for _, event in sorted(made, key=lambda one: one[0])]


def slate(request: str, time: int, user: int, ads: list[int]) -> Slate:
    return Slate(
        request_id=request, user_id=f"user{user}", event_time=time, known_time=time,
        placement=f"placement{ads[0] % 2}", device="device0", arm="policy", degraded=False,
        policy_version="0123456789abcdef", impression_share=0.1, click_share=0.7,
        conversion_share=0.2, ads=[Shown(f"ad{ad}", 400_000, 0.25, 0.0831, 1234.5) for ad in ads],
    )  # fmt: skip


def behaviour(name: str, time: int, user: int, ad: int) -> Behaviour:
    return Behaviour(
        event_id=name, user_id=f"user{user}", ad_id=f"ad{ad}",
        category_id=f"category{ad % CATEGORIES}", action=ACTIONS[ad % len(ACTIONS)],
        event_time=time, known_time=time,
    )  # fmt: skip


def main(folder: Path, rate: int, seconds: int) -> None:
    """Keeps the rate: what is late is caught up with."""
    rng = np.random.default_rng(0)
    path, started, events = folder / "load.jsonl.open", time.monotonic(), rate // 50
    with path.open("ab", buffering=0) as log:
        for tick in range(50 * seconds):
            now = time.time_ns() // 1_000
            log.write(b"".join(one + b"\n" for one in mixed(rng, events, now, 1e9, f"t{tick}.")))
            time.sleep(max(0.0, started + (tick + 1) / 50 - time.monotonic()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
