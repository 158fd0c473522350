"""Where a reset goes to, as people say it, and what that will mean for what a projection holds.

A point in time is one of the governed topics: when the broker appended their records. Only records of events are a history of
which a part can be read. All else says how things are: rows of a database, of which one that is taken back must have been
added; who is who, which day it is, whom to forget. That is read whole, as the tables begin empty.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from c360.declare import ProjectionDeclaration
from c360.engine.transport import TP
from c360.errors import UsageError
from c360.plan import Plan

_ISO = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
_SHORT = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Target:
    """Where to. `text`: as it is typed, and typed again to finish a reset that was killed. None of the others: the earliest.

    at_ms: a point in time, epoch ms; offsets: of inputs; current: those that the group has.
    """

    text: str
    at_ms: int | None = None
    offsets: Mapping[TP, int] | None = None
    current: bool = False

    @property
    def whole(self) -> bool:
        return self.at_ms is None and self.offsets is None and not self.current


EARLIEST = Target("--to-earliest")


def to_datetime(text: str) -> Target:
    """ISO 8601, UTC where it says no zone. Raises UsageError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--to-datetime {text}: write it as 2026-03-01 or 2026-03-01T12:00:00Z") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return Target(f"--to-datetime {text}", at_ms=round(at.timestamp() * 1000))


def by_duration(text: str, now_ms: int) -> Target:
    """So long ago: 90m, 12h, 7d, or as Kafka's tools have it, P7D, PT12H. Raises UsageError."""
    if short := _SHORT.fullmatch(text):
        ago = timedelta(**{_UNITS[short[2]]: int(short[1])})
    elif (iso := _ISO.fullmatch(text)) and any(iso.groupdict().values()):
        ago = timedelta(**{unit: int(n) for unit, n in iso.groupdict().items() if n})
    else:
        raise UsageError(f"--by-duration {text}: write it as 90m, 12h, 7d or P7DT12H")
    return Target(f"--by-duration {text}", at_ms=now_ms - ago // timedelta(milliseconds=1))


def to_offsets(name: str, text: str | None) -> Target:
    """`text`: of the file of that name, JSON `{"topic/partition": offset}` or lines `topic,partition,offset`; None: where the
    group stands. Raises UsageError."""
    if text is None:
        return Target("--to-offsets current", current=True)
    try:
        return Target(
            f"--to-offsets {name}", offsets=dict(_json(text) if text.lstrip().startswith("{") else _csv(text))
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f'--to-offsets {name}: it is to hold {{"topic/partition": offset, …}}, or lines topic,partition,offset as'
            f" `kafka-consumer-groups --export` writes them ({error})"
        ) from None


def _json(text: str) -> Iterable[tuple[TP, int]]:
    for name, offset in json.loads(text).items():
        topic, slash, partition = name.rpartition("/")
        if not slash or type(offset) is not int:
            raise ValueError(f"{name!r} is no topic/partition with an offset")
        yield TP(topic, int(partition)), offset


def _csv(text: str) -> Iterable[tuple[TP, int]]:
    for line in csv.reader(io.StringIO(text)):
        words = [word.strip() for word in line]
        if not any(words):
            continue
        *_, topic, partition, offset = words  # with several groups in it, the group comes first
        yield TP(topic, int(partition)), int(offset)


# ------------------------------------------------------------------------------------------------------------- meaning
def histories(plan: Plan, projection: ProjectionDeclaration) -> tuple[str, ...]:
    """The governed topics of a projection of which a part can be folded."""
    plan = plan.at(projection.govern)
    return tuple(plan.governed(s) for s in plan.sources_of(projection) if s.kind != "rows")


def meaning(plan: Plan, projection: ProjectionDeclaration, since: Mapping[str, str]) -> tuple[str, ...]:
    """What each attribute will be of, in words. `since`: by governed topic, from when on it is folded; none: all of it."""
    plan = plan.at(projection.govern)
    said = []
    for attribute, declared in zip(projection.attributes, projection.declarations, strict=True):
        topics = dict.fromkeys(plan.governed(plan.source_of(item.record)) for item in declared.inputs)
        cut = {topic: since[topic] for topic in topics if topic in since}
        if not cut:
            said.append(f"`{attribute.name}` will be of all that is retained")
            continue
        verb = "count" if declared.kind == "count" else "be of what came in"
        whole = [topic for topic in topics if topic not in since]
        where = f" ({', '.join(cut)})" if len(set(cut.values())) == 1 else ""
        points = dict.fromkeys(cut.values()) if where else [f"{when} ({topic})" for topic, when in cut.items()]
        beside = f", and of all of {', '.join(whole)}" if whole else ""
        said.append(f"`{attribute.name}` will {verb} from {' and '.join(points)} on{where}{beside}")
    return tuple(said)


def time_text(at_ms: float) -> str:
    """A time for people, to the second: 2026-03-01, or 2026-03-01T12:00:00Z."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return at.date().isoformat() if (at.hour, at.minute, at.second) == (0, 0, 0) else at.strftime("%Y-%m-%dT%H:%M:%SZ")
