"""The output beside that of an undisturbed run of the same input. Pure: records in, counts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Pair = tuple[bytes, bytes]  # key and value of a record, in the order of its partition
Topic = Mapping[int, Sequence[Pair]]  # by partition
EXAMPLES = 5


@dataclass
class Verdict:
    """What is wrong with an output; nothing, if all counts are 0."""

    records: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0  # that no undisturbed run would write
    disordered: int = 0  # keys whose records came in another order
    wrong: int = 0  # profiles with other bytes
    examples: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not (self.lost or self.doubled or self.invented or self.disordered or self.wrong)

    def add(self, other: Verdict) -> None:
        for name in ("records", "lost", "doubled", "invented", "disordered", "wrong"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def example(self, kind: str, topic: str, value: bytes) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{kind} in {topic}: {value[:200]!r}")


def compare_streams(name: str, right: Topic, found: Topic, lane: Callable[[Pair], Hashable]) -> Verdict:
    """Records that must come once each; those of one lane in the order of the right ones."""
    verdict = Verdict(records=sum(map(len, found.values())))
    for partition in right.keys() | found.keys():
        wanted, got = right.get(partition, ()), found.get(partition, ())
        expected, actual = Counter(wanted), Counter(got)
        for pair, n in (expected - actual).items():
            verdict.lost += n
            verdict.example("lost", name, pair[1])
        for pair, n in (actual - expected).items():
            kind = "doubled" if pair in expected else "invented"
            setattr(verdict, kind, getattr(verdict, kind) + n)
            verdict.example(kind, name, pair[1])
        ordered, came = _lanes(wanted, lane), _lanes(got, lane)
        for key in ordered.keys() & came.keys():
            if ordered[key] != came[key] and Counter(ordered[key]) == Counter(came[key]):
                verdict.disordered += 1
                verdict.example("out of order", name, repr(key).encode())
    return verdict


def _lanes(pairs: Iterable[Pair], lane: Callable[[Pair], Hashable]) -> dict[Hashable, list[Pair]]:
    lanes: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        lanes.setdefault(lane(pair), []).append(pair)
    return lanes


def _there(pairs: Iterable[Pair]) -> dict[bytes, bytes]:
    return {key: value for key, value in dict(pairs).items() if value}


def compare_tables(name: str, right: Topic, found: Topic) -> Verdict:
    """The last value of each key, byte for byte. A tombstone is no value: a profile that came and went between two commits
    of one run may have been written and taken back in the other."""
    verdict = Verdict(records=sum(map(len, found.values())))
    for partition in right.keys() | found.keys():
        wanted, got = _there(right.get(partition, ())), _there(found.get(partition, ()))
        for key in wanted.keys() | got.keys():
            if wanted.get(key) == got.get(key):
                continue
            kind = "lost" if key not in got else "invented" if key not in wanted else "wrong"
            setattr(verdict, kind, getattr(verdict, kind) + 1)
            verdict.example(kind, name, got.get(key) or wanted[key])
    return verdict
