"""Events as JSON: payloads of one topic to records of the types declared on it, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from c360.codecs.layout import ODD, UNREADABLE, Layout, misfit_of, readable
from c360.codecs.record import Record
from c360.errors import Misfit

HeadersOf = Callable[[int], Sequence[tuple[str, bytes]]]
"""The headers of a record, by its index in what is decoded."""


@dataclass(frozen=True)
class Choice:
    """A record type, and the values at paths of a payload that make the payload one of it. None: every payload is."""

    record: type[Record]
    when: Mapping[str, str | int | bool] | None


class JsonDecoder:
    """Decodes payloads as the first of `choices` that they match. `root`: where in a payload the fields of records are."""

    ids: Sequence[str | None] | None = None
    """What payloads that were decoded last say of their own ids and times; None: only fields of records do."""
    times: Sequence[int | None] = ()

    def __init__(self, choices: Sequence[Choice], unmatched: Literal["dlq", "ignore"], root: str = "") -> None:
        self.layouts = [(list((choice.when or {}).items()), Layout(choice.record, root)) for choice in choices]
        self.unmatched = unmatched
        self.names = " or ".join(layout.name for _, layout in self.layouts)
        paths = sorted({path for tests, _ in self.layouts for path, _ in tests})
        self.probe = _Probe(paths) if paths else None

    def decode(self, values: Sequence[bytes | None], headers: HeadersOf | None = None) -> list[Record | Misfit | None]:
        """One answer per payload: its record; what is wrong with it; or None when it is to be left out.

        `headers`: of formats that put something there.
        """
        if self.probe is not None:
            return [self._chosen(value) for value in values]
        quick = self.layouts[0][1].quick or self._only
        out: list[Record | Misfit | None] = []
        for value in values:
            try:
                out.append(quick(readable(value)) if value else self._empty())
            except ODD:
                out.append(self._only(value))
        return out

    def _only(self, value: bytes | None) -> Record | Misfit:
        """As the only choice there is."""
        if not value:
            return self._empty()
        try:
            record: Record = self.layouts[0][1].read(readable(value))
            return record
        except Misfit as misfit:
            return misfit
        except UNREADABLE as error:
            return misfit_of(error, self.names)

    def _empty(self) -> Misfit:
        return Misfit("empty", f"the record has no value; {self.names} was expected")

    def _chosen(self, value: bytes | None) -> Record | Misfit | None:
        if not value:
            return self._empty()
        assert self.probe is not None
        try:
            found = self.probe.look(value)
            for tests, layout in self.layouts:
                if all(found.get(path) == wanted and type(found[path]) is type(wanted) for path, wanted in tests):
                    record: Record = layout.read(value)
                    return record
        except Misfit as misfit:
            return misfit
        return self._unclaimed("payload")

    def _unclaimed(self, what: str) -> Misfit | None:
        """What becomes of a payload that is of no type."""
        if self.unmatched == "ignore":
            return None
        return Misfit(
            "unmatched", f"the {what} is none of {self.names}: no when=… fits; unmatched='ignore' leaves such out"
        )


class _Probe:
    """Looks at a few places of a payload."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = [(path, path.split(".")) for path in paths]
        names = sorted({parts[0] for _, parts in self.paths})
        self.slots = {name: f"f{i}" for i, name in enumerate(names)}
        fields: list[Any] = [(slot, Any, msgspec.field(name=name, default=None)) for name, slot in self.slots.items()]
        self.decode = msgspec.json.Decoder(msgspec.defstruct("Probe", fields)).decode

    def look(self, value: bytes) -> dict[str, Any]:
        """What is at the paths. Raises Misfit when this is no JSON object."""
        try:
            found = self.decode(readable(value))
        except UNREADABLE as error:
            raise misfit_of(error, "the payload") from None
        out = {}
        for path, parts in self.paths:
            at = getattr(found, self.slots[parts[0]])
            for part in parts[1:]:
                at = at.get(part) if isinstance(at, dict) else None
            out[path] = at
        return out
