"""Which partition a key belongs to, as every Kafka client with the default partitioner of Java has it."""

from __future__ import annotations

import struct
from functools import lru_cache


@lru_cache(maxsize=1 << 16)
def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, unsigned 32 bit (Java: org.apache.kafka.common.utils.Utils.murmur2)."""
    m, mask, size = 0x5BD1E995, 0xFFFFFFFF, len(key)
    h = 0x9747B28C ^ size
    whole = size & ~3
    for (k,) in struct.iter_unpack("<I", key[:whole]):
        k = k * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if whole < size:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Java's default partitioner and librdkafka's murmur2 choose it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
