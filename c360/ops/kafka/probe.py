"""Is a broker ready? One Metadata request, written by hand, over a plain socket.

Knows the bytes of that one request and answer, so that the tools start no Kafka client (only `engine.kafka` may).
Layout: https://kafka.apache.org/protocol (Metadata, version 1; big-endian; strings are int16 length and bytes).
"""

from __future__ import annotations

import socket
import struct

_METADATA, _VERSION, _CLIENT = 3, 1, b"c360-probe"
_ANSWER_MAX = 1 << 20


def live_brokers(host: str, port: int, *, timeout_s: float = 1.0) -> int:
    """How many brokers this one knows to be alive, once a controller is elected; 0 while it is not ready.

    A broker is listed only after the controller has unfenced it, so N here means that N can be produced to.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as link:
            return _count(_ask(link))
    except (OSError, struct.error):
        return 0


def _ask(link: socket.socket) -> bytes:
    no_topics = struct.pack(">i", 0)
    request = struct.pack(">hhih", _METADATA, _VERSION, 1, len(_CLIENT)) + _CLIENT + no_topics
    link.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(link, 4))
    if not 0 <= size <= _ANSWER_MAX:
        raise ConnectionError("not a Kafka broker")
    return _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = link.recv(size - len(got))
        if not part:
            raise ConnectionError("closed in the middle of an answer")
        got += part
    return bytes(got)


def _count(answer: bytes) -> int:
    """Brokers in a Metadata v1 answer; 0 when it names no controller yet."""
    _correlation, brokers = struct.unpack_from(">ii", answer)
    at = 8
    for _ in range(brokers):
        (host,) = struct.unpack_from(">h", answer, at + 4)
        at += 6 + host + 4
        (rack,) = struct.unpack_from(">h", answer, at)  # -1: no rack
        at += 2 + max(rack, 0)
    (controller,) = struct.unpack_from(">i", answer, at)
    return int(brokers) if controller >= 0 else 0
