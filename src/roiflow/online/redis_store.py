"""The online store in Redis: one MGET for a request, SET with an expiry for what is new."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from roiflow.errors import ServiceError
from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary
from roiflow.online.store import FeatureStore, Value, Writes, moved

PREFIX = "roiflow:"

READ_SECONDS = 0.1
"""A request waits so long for Redis, then it is answered from defaults."""

BATCH_SECONDS = 5.0
"""A writer waits so long for what a batch needs, which is thousands of values at a time."""

WRITE_SECONDS = 30.0

_PIPELINE = 2_000

# All of a batch or nothing, only over the watermark that was read: else a batch that is sent again,
# or two consumers, would count events twice. A script and no WATCH, MULTI, EXEC: these need a
# connection of their own and two more round trips, and Python queues every SET and parses its
# answer.
_COMMIT = """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
local at, size = 2, #ARGV
while at < size do
    local seconds, last = tonumber(ARGV[at]), at + 2 * ARGV[at + 1]
    at = at + 2
    while at <= last do
        if seconds > 0 then
            redis.call('SET', ARGV[at], ARGV[at + 1], 'EX', seconds)
        else
            redis.call('SET', ARGV[at], ARGV[at + 1])
        end
        at = at + 2
    end
end
"""
"""ARGV: the expected value of KEYS[1], then for each lifetime its seconds, its number of values,
and these by key."""


class RedisValues:
    """Values (features/online.py) under `prefix` in a Redis server."""

    def __init__(self, url: str, prefix: str = PREFIX, read_seconds: float = READ_SECONDS) -> None:
        def client(seconds: float) -> redis.Redis:
            return redis.Redis.from_url(
                url,
                socket_timeout=seconds,
                socket_connect_timeout=READ_SECONDS,
                retry=Retry(NoBackoff(), 1),
            )

        place = urlsplit(url)
        self._place = f"{place.hostname}:{place.port}"
        self._prefix = prefix
        # Two clients, because a request may wait for a tenth of a second and a batch of thousands
        # of values may not fail for it. One more try, at once: a connection that Redis closed while
        # idle is found out only by using it.
        self._reader, self._writer = client(read_seconds), client(WRITE_SECONDS)
        self._commit = self._writer.register_script(_COMMIT)

    def get(self, keys: Sequence[str]) -> list[Value]:
        """See Values; one MGET."""
        prefix = self._prefix
        try:
            found = self._reader.mget([prefix + key for key in keys])
        except redis.RedisError as error:
            raise ServiceError(f"Redis at {self._place}: {error}") from None
        return cast(list[Value], found)

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        """See Values; pipelines of SET."""
        try:
            left = iter(pairs.items())
            while some := list(islice(left, _PIPELINE)):
                # Not a transaction: a snapshot's as_of comes in the last put, so that half of one
                # is not taken for whole; and a transaction would hold other clients up for all of
                # it.
                pipeline = self._writer.pipeline(transaction=False)
                for key, value in some:
                    pipeline.set(self._prefix + key, value, ex=seconds or None)
                pipeline.execute()
        except redis.RedisError as error:
            raise ServiceError(f"Redis at {self._place}: {error}") from None

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        """See Values; one script, which Redis runs whole and alone.

        A transaction would take Python several times as long to send, and to read the answers of.
        """
        prefix = self._prefix
        content: list[str | bytes | int] = [expected or b""]
        for pairs, seconds in writes:
            content += [seconds, len(pairs)]
            for name, value in pairs.items():
                content += [prefix + name, value]
        try:
            found = cast(Value, self._commit(keys=[prefix + key], args=content))
        except redis.RedisError as error:
            raise ServiceError(f"Redis at {self._place}: {error}") from None
        if found is not None:
            raise ServiceError(moved(key, expected, found or None))

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        self._writer.close()


class RedisStore(FeatureStore):
    """A store in Redis (`url`, such as redis://127.0.0.1:6379/0)."""

    def __init__(
        self,
        plan: Plan,
        vocabulary: Vocabulary,
        history: int,
        url: str,
        prefix: str = PREFIX,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._redis = RedisValues(url, prefix, read_seconds)
        super().__init__(plan, vocabulary, history, self._redis)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
