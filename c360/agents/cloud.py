"""CloudEvents attributes in the headers of what leaves: CloudEvents 1.0, Kafka binding, binary mode.

Nothing in them is of a clock or by chance: the same change, made again after a crash, has the same id. Source of the form:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from hashlib import blake2b

from c360.engine.transport import Headers

ID_BYTES = 16
CHANGED, REMOVED = "c360.profile.changed", "c360.profile.removed"


def event_id(before: bytes, key: bytes, digest: bytes, cause: int | None) -> bytes:
    """Of a profile's next change, whose value has this digest (b"": it is removed). `before`: the id of its last one, so that
    two changes to the same value have two ids. `cause`: append time of the record that it is for."""
    said = (before, key, digest, b"" if cause is None else b"%d" % cause)
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in said), digest_size=ID_BYTES).digest()


class Told:
    """Writes the attributes of one door's events."""

    def __init__(self, app: str, door: str, content_type: str) -> None:
        fixed = {"ce_specversion": "1.0", "ce_source": f"/c360/{app}/{door}"}
        self._fixed = [(name, said.encode()) for name, said in fixed.items()]
        self._content = ("content-type", content_type.encode())

    def headers(self, event: bytes, key: bytes, as_of: str | None, *, removal: bool) -> Headers:
        """`key`: the profile's id. `as_of`: the newest event time in it, RFC 3339; a removal has none."""
        said = [*self._fixed, ("ce_id", event.hex().encode()), ("ce_subject", key)]
        said.append(("ce_type", (REMOVED if removal else CHANGED).encode()))
        if as_of is not None:
            said.append(("ce_time", as_of.encode()))
        if not removal:
            said.append(self._content)
        return said
