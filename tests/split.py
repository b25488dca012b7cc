"""Which arm a user is in: the hash split of the edge, computed anew to hold nginx to it.

nginx's `split_clients` is MurmurHash2 (Appleby, 2008; 32 bits, seed 0) of salt and user id, cut
into ranges. Wheels have MurmurHash3; of MurmurHash2 there is none that is kept up.
"""

from collections.abc import Mapping

from roiflow.deployment.edge import hundredths

_MULTIPLIER = 0x5BD1E995
_WORD = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 with seed 0, 0 to 2^32 - 1."""
    value = len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _WORD
        word = (word ^ word >> 24) * _MULTIPLIER & _WORD
        value = (value * _MULTIPLIER & _WORD) ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _WORD
    value = (value ^ value >> 13) * _MULTIPLIER & _WORD
    return value ^ value >> 15


def arm(user: str, salt: str, percents: Mapping[str, float]) -> str:
    """The user's arm. `percents` are in the order of the ranges and add to 100."""
    share = murmur2(f"{salt}{user}".encode())
    edge = 0
    for name, percent in percents.items():
        edge += hundredths(percent) * _WORD // 10_000
        if share < edge:
            return name
    return list(percents)[-1]
