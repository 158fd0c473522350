"""What a user can say of enrichments that ask somebody else: an async function, about what it is asked, and how often.

Checked as far as one declaration can be checked alone; what several add up to is `c360.plan`.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from c360.codecs.record import Record, fields_of, is_record
from c360.declare import Source, SourceType, identifier_in, without_none
from c360.errors import DeclarationError
from c360.governance.purposes import Purpose
from c360.identity.namespace import Namespace
from c360.rights import purposes_said

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
REPEATS = timedelta(days=14)  # an answer that comes again within it is dropped; questions are kept for a week
MOST_RETRIES, MOST_AT_ONCE = 100, 10_000
Ask = Callable[[Any], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Limits:
    """How a function is called. `rate`: calls a second in one process, None: as many as come; `concurrency`: at a time."""

    timeout_s: float = 10.0
    retries: int = 5
    rate: float | None = None
    concurrency: int = 8


@dataclass(frozen=True)
class Outside:
    """An outside enrichment: `function` is asked about identifiers of the class `kind`, each of a subject once in `refresh`,
    for `purpose`; what it gives is a `record` about that subject. `region`: where it is asked."""

    name: str
    kind: type
    record: type[Record]
    function: Ask
    refresh: timedelta
    purpose: Purpose | None
    limits: Limits
    region: str | None = None

    @property
    def agent(self) -> str:
        return f"outside.{self.name}"

    @property
    def waits(self) -> bool:
        """Whether people are asked if they agree: what they do not, is asked when they do."""
        return self.purpose is not None and self.purpose.asks

    def source(self, app: str) -> Source:
        """Its answers, as govern reads them: whom they are about, their ids and times are said by us."""
        purposes = frozenset[str]() if self.purpose is None else frozenset({self.purpose.name})
        return Source(
            self.agent,
            f"{app}.{self.agent}",
            "events",
            (SourceType(self.record, None, (), None, None),),
            None,
            "dlq",
            REPEATS,
            purposes=purposes,
            region=self.region,
            format="answers",
        )


@dataclass(frozen=True)
class Carrier:
    """A record type that has what is asked about. `others`: fields with further identifiers of its subject; both with whether
    they are lists."""

    source: Source
    declared: SourceType
    fields: tuple[tuple[str, Namespace, bool], ...]
    others: tuple[tuple[str, Namespace, bool], ...]


def carriers_of(outside: Outside, sources: Iterable[Source], identifiers: Mapping[type, Namespace]) -> list[Carrier]:
    """Where its questions come from: sources that may be used for its purpose, but for its own answers."""
    wanted, found = identifiers[outside.kind], []
    for source in sources:
        if source.name == outside.agent or not _may_ask(outside, source):
            continue
        for declared in source.types:
            named = [(f.name, *identifier_in(f.annotation, identifiers)) for f in fields_of(declared.record)]
            known = [(name, namespace, many) for name, namespace, many in named if namespace is not None]
            fields = tuple(one for one in known if one[1].name == wanted.name)
            if fields:
                found.append(Carrier(source, declared, fields, tuple(one for one in known if one not in fields)))
    return found


def _may_ask(outside: Outside, source: Source) -> bool:
    return outside.purpose is None or outside.purpose.name in source.purposes


# ---------------------------------------------------------------------------------------------------------- declaring
def declare_outside(
    function: Any,
    identifiers: Mapping[type, Namespace],
    purposes: Iterable[Purpose],
    *,
    refresh: Any,
    purpose: Any,
    limits: Limits,
    region: str | None,
) -> Outside:
    """Read what is decorated. Raises DeclarationError, naming the function."""
    name = str(getattr(function, "__name__", ""))
    said = f"@app.enrich(refresh=…) {name}"
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError(
            f"{said}: write `async def {name}(email: Email) -> Firm | None: ...`; a plain function of a record is"
            " @app.enrich(TheRecord), without refresh="
        )
    if not NAME.match(name):
        raise DeclarationError(f"{said}: its name is in topics: lower case letters, digits and _, at most 40")
    if not isinstance(refresh, timedelta) or refresh < timedelta(seconds=1):
        raise DeclarationError(
            f"{said}: refresh= is after how long it is asked again, a second or more, such as timedelta(days=30); not"
            f" {refresh!r}"
        )
    if purpose is not None:
        purposes_said(said, [purpose], purposes)
    _check_limits(said, limits)
    kind, record = _signature(said, function, identifiers)
    return Outside(name, kind, record, function, refresh, purpose, limits, region)


def _check_limits(said: str, limits: Limits) -> None:
    if not 0 < limits.timeout_s <= 3600:
        raise DeclarationError(
            f"{said}: timeout= is how long one call may take, up to an hour, such as timedelta(seconds=5)"
        )
    if not 0 <= limits.retries <= MOST_RETRIES:
        raise DeclarationError(
            f"{said}: retries={limits.retries}: how often a call that failed is made again, 0 to 100"
        )
    if limits.rate is not None and not (limits.rate > 0 and math.isfinite(limits.rate)):
        raise DeclarationError(f"{said}: rate={limits.rate}: calls a second in one process, such as rate=5 or rate=0.1")
    if not 1 <= limits.concurrency <= MOST_AT_ONCE:
        raise DeclarationError(f"{said}: concurrency={limits.concurrency}: calls at a time, 1 to {MOST_AT_ONCE}")


def _signature(said: str, function: Any, identifiers: Mapping[type, Namespace]) -> tuple[type, type[Record]]:
    """What it is asked about, and what an answer is."""
    parameters = list(inspect.signature(function).parameters.values())
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != 1 or parameters[0].kind not in by_place:
        raise DeclarationError(f"{said}: takes one identifier, as in `async def {function.__name__}(email: Email)`")
    try:
        annotations = inspect.get_annotations(function, eval_str=True)
    except NameError as error:
        raise DeclarationError(f"{said}: an annotation cannot be found here: {error}; define it above") from None
    kind, returns = annotations.get(parameters[0].name), annotations.get("return")
    if is_record(kind):
        asked, record = parameters[0].name, getattr(kind, "__name__", "")
        raise DeclarationError(
            f"{said}: {asked} is {record}, a whole record; it is asked about identifiers, which last while records go by."
            f' Name what of {record} it looks at, as one that joins nobody: @app.identifier("place", links=False, limit=None)'
            f" over `class Place(str): ...`, a field of that type in {record}, `async def {function.__name__}(place: Place)`."
            " What takes a whole record is an @app.agent over its governed topic, writing to a topic with a source of its own"
        )
    if not isinstance(kind, type) or kind not in identifiers:
        raise DeclarationError(
            f"{said}: {parameters[0].name} is {getattr(kind, '__name__', kind)}, which is no identifier; annotate it with a"
            " class decorated by @app.identifier, declared above"
        )
    record = without_none(returns)
    if not is_record(record) or typing.get_origin(record) is not None:
        raise DeclarationError(
            f"{said}: returns {getattr(returns, '__name__', returns)}; annotate a record type or None, `-> Firm | None`, Firm"
            " being a class that derives from c360.Record"
        )
    return kind, record
