"""`{app}.consent`, against what the oracle makes of all raw records of decisions up to the committed positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from c360.engine.partition import partition_of
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.governance.consent import Word, decode_state, encode_state
from c360.governance.names import is_veiled
from c360.ops.verify.log import DeadLetters, Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Plan
from c360.testing.oracle.consent import Decisions, Given, Newest, Told, command, newest
from c360.testing.oracle.governed import Delivery
from c360.testing.oracle.plain import parse
from c360.testing.oracle.sealing import Sight

RAW, REPLAY_TIME, SEALED = "c360-raw", "c360-time", "c360-sealed"  # headers of a replayed misfit


class _Record(NamedTuple):
    """The last record of an identifier; None: a tombstone."""

    entry: Entry
    said: dict[str, Newest] | None


class ConsentCheck:
    """Everything that the consent agent has written.

    Of identifiers that were suppressed at any time nothing is said: what counts of them hangs on when the agent learnt of it.
    """

    def __init__(self, plan: Plan, log: Log, dead: DeadLetters, sight: Sight | None) -> None:
        self.plan, self.log, self.dead, self.sight = plan, log, dead, sight
        self.sources = {s.asked.topic: Decisions(plan, s, sight) for s in plan.consents}

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        for task in positions.values():
            out.positions |= {tp: n for tp, n in partitions_of(task.positions).items() if tp.topic != self.plan.erase}
        given, whole = self._given(out)
        found = self._found(out)
        hidden = self._suppressed()
        expected = newest(given)
        topic = self.plan.consent
        for identifier in sorted(expected.keys() | found.keys()):
            if hidden and self._veil(identifier) in hidden:
                continue
            record, wanted = found.get(identifier), expected.get(identifier, {})
            if not whole and record is not None:  # what was cut may be newer
                wanted = newest([*_as_given(identifier, record.said or {}), *_as_given(identifier, wanted)])[identifier]
            key = identifier.encode()
            if record is None or record.said is None:
                if wanted:
                    tp = TP(topic, partition_of(key, self.plan.partitions))
                    out.differ("lost", tp if record is None else record.entry.tp, None, key)
            elif record.said != wanted:
                kind = "altered" if identifier in expected else "unexpected"
                out.differ(kind, record.entry.tp, record.entry.offset, key)
        return out

    def _given(self, out: Findings) -> tuple[list[Given], bool]:
        """All decisions up to the positions; whether none before was cut. A misfit without a dead letter is a difference."""
        given: list[Given] = []
        whole = True
        for topic in (*self.sources, self.plan.consent_commands):
            for tp in self.log.partitions(topic):
                position = out.positions.get(tp, 0)
                if self.log.start(tp) > 0:
                    whole = False
                    out.cannot_tell(
                        f"{topic}: retention has cut its beginning; what was decided there is taken as it stands"
                    )
                letters = self.dead.of("consent", tp)
                for entry in self.log.read([tp]):
                    if entry.offset >= position:
                        out.lag += 1
                        continue
                    told = self._told(topic, Delivery(entry.key, entry.value, entry.time), dict(entry.headers()))
                    given += told.given
                    if told.misfit and entry.offset not in letters:
                        out.differ("no dead letter", tp, entry.offset, entry.key)
        return given, whole

    def _told(self, topic: str, raw: Delivery, headers: Mapping[str, bytes | None]) -> Told:
        source = self.sources.get(topic)
        if source is not None:
            return source.read(raw)
        return self._sent_back(raw, headers) if RAW in headers else command(self.plan, raw)

    def _sent_back(self, raw: Delivery, headers: Mapping[str, bytes | None]) -> Told:
        """A dead letter that was replayed. What is wrong with it is said of the raw record."""
        try:
            source = self.sources[(headers[RAW] or b"").decode().rpartition("/")[0]]
            key, value, time = raw.key, raw.value, int(headers[REPLAY_TIME] or b"")
            if SEALED in headers:
                assert self.sight is not None
                key, value, _ = self.sight.letter(parse(value or b""))
        except Exception:  # the agent leaves out what it cannot read, whatever is wrong with it
            return Told()
        return Told(source.read(Delivery(key, value, time)).given)

    def _found(self, out: Findings) -> dict[str, _Record]:
        found: dict[str, _Record] = {}
        for entry in self.log.read(self.log.partitions(self.plan.consent)):
            try:
                key, state = (entry.key or b"").decode(), decode_state(entry.value)
                sound = partition_of(entry.key or b"", self.plan.partitions) == entry.tp.partition
                sound = sound and encode_state(state) == entry.value
            except Exception:  # whatever is wrong with it: no agent can have written it
                sound = False
            if not sound:
                out.differ("altered", entry.tp, entry.offset, entry.key)
                continue
            said = {purpose: (n.at, _plain(n.grant), _plain(n.refusal)) for purpose, n in state.items()}
            found[key] = _Record(entry, None if entry.value is None else said)
        return found

    def _suppressed(self) -> set[str]:
        if not self.plan.erases:
            return set()
        entries = self.log.read(self.log.partitions(self.plan.suppressed))
        return {(entry.key or b"").decode() for entry in entries}

    def _veil(self, identifier: str) -> str:
        assert self.sight is not None, "nobody is suppressed in an app without keys"
        # What has no namespace is nobody's: somebody else has written it, which is to be said.
        return identifier if is_veiled(identifier) or ":" not in identifier else self.sight.token(identifier)


def _plain(word: Word | None) -> tuple[str, str, int | None] | None:
    return None if word is None else (word.status, word.source, word.expires_at)


def _as_given(identifier: str, said: Mapping[str, Newest]) -> list[Given]:
    """The decisions that make a record what it is."""
    return [
        Given(identifier, purpose, at, *word)
        for purpose, (at, grant, refusal) in said.items()
        for word in (grant, refusal)
        if word is not None
    ]
