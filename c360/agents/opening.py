"""Keys at hand, to open sealed values: from the process's copy of the keys topic, which may be behind.

A key is in its topic before what it sealed can be read. So one that is missing was destroyed, once the copy has been read as
far as the topic went when the key was found to be missing. Used by one thread; raises Stale while there is no whole copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any

from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP
from c360.errors import Misfit, Shut
from c360.governance.keys import Opener, record_key
from c360.governance.names import Vault
from c360.governance.sealing import DataKey, read_sealed
from c360.plan import Plan

UNKNOWN_KEYS = 10_000  # of which it is remembered up to where the keys have to be read
WAITING = "the key of a sealed value has not been read yet; this process's copy is catching up, wait"


class Opening:
    """`governance` and `vault` None: of an app that seals nothing."""

    def __init__(self, plan: Plan, governance: GlobalTable | None, vault: Vault | None) -> None:
        self.topic, self.governance = plan.keys, governance
        self.opener = None if vault is None else Opener(plan.app, vault.master, self._records)
        self._unknown: dict[tuple[str, str], Mapping[TP, int]] = {}
        self.awaits: Callable[[], bool] | None = None  # whether what was missing is there; then it is worth another try

    def open(self, value: Any, subjects: Container[str], fields: Container[str]) -> bytes:
        """To be asked after `have`. Raises Misfit; Destroyed."""
        if self.opener is None:
            raise Misfit("not-sealed", "a sealed value stands where the app has no keys")
        return self.opener.open(value, subjects=subjects, fields=fields, complete=True)

    def key(self, value: Any) -> DataKey:
        """What sealed a value that could be opened."""
        assert self.opener is not None
        sealed = read_sealed(value)
        return self.opener.prepare([(sealed.subject, sealed.key_id)])[sealed.subject, sealed.key_id]

    def have(self, wanted: Iterable[tuple[str, str]]) -> None:
        """All keys that there are, by (subject, key id); those that are missing were destroyed. Raises Shut until that is known
        for sure."""
        pairs = list(wanted)
        if not pairs or self.opener is None:
            return
        assert self.governance is not None
        there = self._records(pairs)
        missing = [pair for pair in pairs if pair not in there]
        self.opener.prepare(there)
        for pair in missing:
            self.opener.forget(*pair)  # it may have been at hand still
        if new := [pair for pair in missing if pair not in self._unknown]:
            if len(self._unknown) > UNKNOWN_KEYS:
                self._unknown, new = {}, missing
            partitions = [tp for tp in self.governance.reached() if tp.topic == self.topic]
            self._unknown.update(dict.fromkeys(new, self._ends(partitions)))
        if not missing:
            return
        wanted_ends: dict[TP, int] = {}
        for pair in missing:
            for tp, end in self._unknown[pair].items():
                wanted_ends[tp] = max(end, wanted_ends.get(tp, 0))
        if not self._reached(wanted_ends):
            self.awaits = lambda: self._reached(wanted_ends)
            raise Shut("keys", WAITING)
        found = self._records(missing)  # it may have come between the look and the count
        self.opener.prepare(found)

    def _records(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        assert self.governance is not None
        pairs = list(wanted)
        values = self.governance.get_many([record_key(*pair) for pair in pairs], self.topic)
        return {pair: value for pair, value in zip(pairs, values, strict=True) if value is not None}

    def _reached(self, ends: Mapping[TP, int]) -> bool:
        assert self.governance is not None
        reached = self.governance.reached()
        return all(reached.get(tp, 0) >= end for tp, end in ends.items())

    def _ends(self, partitions: list[TP]) -> dict[TP, int]:
        assert self.governance is not None
        reader = self.governance.cluster.reader()
        try:
            return reader.ends(partitions)
        finally:
            reader.close()
