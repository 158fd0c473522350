"""Rules of one named view: what each kind of node may do, in what order links decide, and who leads.

Everything here is a function of a key and of declared numbers, never of order or time. Changing rules means another
instance over the same facts; `fingerprint` tells two apart. Knows nothing of evidence, blocks and messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from c360.errors import DeclarationError
from c360.identity import normalize
from c360.identity.namespace import NAME, TWIN, Namespace

Key = str
"""A node: `namespace:value`, such as `crm:42`, `email:~k3v`."""

Status = Literal["ok", "hub", "shared"]
OK: Status = "ok"
HUB: Status = "hub"
SHARED: Status = "shared"

STAND_IN = "~"  # begins the key of a node that only leads, in the place of one that is erased (docs/decisions/0018)

NEVER = 1 << 62  # a number that nothing reaches
NATURES_KEPT = 1 << 16  # about 30 MB of what is known of keys; computing one anew takes 4 µs

BLOCKED = (
    "[0-]*",
    "-1",
    "null",
    "none",
    "nan",
    "undefined",
    "unknown",
    "invalid",
    "anonymous",
    "guest",
    "n/a",
    "not set",
    "void",
    "test",
    "true",
    "false",
    "id",
    "distinct_id",
    r"\[object Object\]",
    r"test[_-].*",
    r".*@(test|example)\.(com|org)",
)
"""Values that say nothing, as regular expressions of the whole value, whatever its case; zero UUIDs are in the first."""


def namespace_of(key: Key) -> str:
    return key.partition(":")[0]


class Nature(NamedTuple):
    """All that rules say of one key, in the form that a decision needs."""

    key: Key
    name: str  # of its namespace; "" of one that is not declared
    subject: bool
    unique: bool
    most: int  # values in a profile
    priority: int
    links: bool  # whether links of (a subject) or to (an identifier) it are looked at
    holds: bool  # a value of an attribute that only forbids
    hub_at: int  # more neighbours than this
    shared_at: int  # so many different values of one unique namespace, or more
    rank: tuple[
        bool, bytes, Key
    ]  # elects leaders: stand-ins, subjects, all others, by hash: no range of keys is a hot spot
    label: tuple[int, Key]  # names profiles: a customer before a cookie

    def status(self, degree: int, spread: int) -> Status:
        """Whether the node may link: by its live neighbours alone, so by the set of facts alone.

        degree: how many there are; spread: how many different values of one unique namespace were seen with it, at most.
        """
        return HUB if degree > self.hub_at else SHARED if spread >= self.shared_at else OK


@dataclass(frozen=True, eq=False)
class Rules:
    """One named view, such as `growth` or `risk`, over the declared namespaces. Keys of others are kept and link nobody.

    `blocked`: regular expressions of whole values that link nobody. `cap`: nodes of a connected component, above which it
    is quarantined. Raises DeclarationError where rules contradict each other.
    """

    name: str
    namespaces: Mapping[str, Namespace]
    blocked: tuple[str, ...] = BLOCKED
    cap: int = 1000
    of: Callable[[Key], Nature] = field(init=False, repr=False)  # what these rules say of a key
    blocks: Callable[[str], bool] = field(init=False, repr=False)  # whether a value in clear is one that links nobody

    def __post_init__(self) -> None:
        _check(self)
        said = "|".join(f"(?:{pattern})" for pattern in self.blocked)
        blank_or_said = re.compile(rf"\s*[\"'`]*\s*(?:{said})?\s*[\"'`]*\s*", re.IGNORECASE | re.DOTALL)
        namespaces = dict(self.namespaces)
        object.__setattr__(self, "blocks", lambda value: blank_or_said.fullmatch(value) is not None)

        def nature(key: Key) -> Nature:
            name, _, value = key.partition(":")
            rule = namespaces.get(name)
            digest = blake2b(key.encode(), digest_size=8).digest()
            if key.startswith(STAND_IN):
                rank = (False, b"", key)
                return Nature(key, "", False, False, 1, NEVER, False, False, NEVER, NEVER, rank, (NEVER, key))
            if rule is None:
                return Nature(
                    key, "", False, False, 1, NEVER, False, False, NEVER, NEVER, (True, digest, key), (NEVER, key)
                )
            known = not blank_or_said.fullmatch(value)
            return Nature(
                key,
                name,
                rule.subject,
                rule.unique,
                rule.most,
                rule.priority,
                links=known and rule.links,
                holds=known and not rule.links,
                hub_at=NEVER if rule.hub_at is None else rule.hub_at,
                shared_at=NEVER if rule.shared_at is None else rule.shared_at,
                rank=(not rule.subject, digest, key),
                label=(rule.priority, key),
            )

        object.__setattr__(self, "of", lru_cache(NATURES_KEPT)(nature))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits, the same for rules that decide the same of every fact: the name does not count."""
        return blake2b("\n".join(self.said).encode(), digest_size=16).hexdigest()

    @property
    def said(self) -> tuple[str, ...]:
        """The rules in lines that have all of them, for people to read: one for each setting, so that a change is one."""
        said = [f"cap: {self.cap}", *(f"blocked: {pattern!r}" for pattern in self.blocked)]
        for name in sorted(self.namespaces):
            namespace = self.namespaces[name]
            said_of = [f.name for f in fields(namespace) if f.name not in ("normalize", "name")]
            said += [f"{name}.{n}: {getattr(namespace, n)}" for n in said_of if n != "personal" or namespace.personal]
            said += [f"{name}.most: {namespace.most}", f"{name}.normalize: {_named(namespace.normalize)}"]
        return tuple(said)


def spread_of(uniques: Collection[Key]) -> int:
    """How many different values of one namespace there are among these different keys, at most."""
    if len(uniques) < 2:
        return len(uniques)
    counts: dict[str, int] = {}
    for key in uniques:
        name = namespace_of(key)
        counts[name] = counts.get(name, 0) + 1
    return max(counts.values())


def _named(normalizer: Any) -> str:
    """A normaliser by name; one that has settings shows them in its repr."""
    name = getattr(normalizer, "__qualname__", None)
    return f"{normalizer.__module__}.{name}" if name else repr(normalizer)


# ------------------------------------------------------------------------------------------------------ what is wrong
def _check(rules: Rules) -> None:
    said = f"identity {rules.name!r}"
    if not any(n.subject for n in rules.namespaces.values()):
        raise DeclarationError(f"{said}: no namespace is a subject, so no fact is about anybody: give one subject=True")
    if rules.cap < 2:
        raise DeclarationError(f"{said}: cap={rules.cap} quarantines everybody; it is at least 2, by default 1000")
    for pattern in rules.blocked:
        try:
            re.compile(pattern)
        except re.error as error:
            raise DeclarationError(f"{said}: blocked={pattern!r} is no regular expression: {error}") from None
    for name, namespace in rules.namespaces.items():
        if name != namespace.name:
            raise DeclarationError(f"{said}: namespace {namespace.name!r} is declared under the name {name!r}")
        for wrong in _contradictions(namespace):
            raise DeclarationError(f"{said}: namespace {name!r} {wrong}")


def _contradictions(n: Namespace) -> Iterable[str]:
    if not NAME.match(n.name.removeprefix(TWIN)):
        yield "has a name that is not lower case letters, digits and _, at most 40"
    if n.name == "session_id":
        yield "is never an identity, a session ends: use the id of the user, device or cookie that it belongs to"
    if not 0 <= n.priority < NEVER:
        yield f"has priority={n.priority}; it is 0 or more, and the smaller decides earlier"
    if n.limit < 1:
        yield f"has limit={n.limit}, so no profile could hold one; it is 1 or more"
    if n.shared_at is not None and n.shared_at < 2:
        yield f"has shared_at={n.shared_at}, so whoever has one customer number links nobody; write 2 or more, or None"
    if n.hub_at is not None and n.hub_at < 1:
        yield f"has hub_at={n.hub_at}, so it links nobody; write 1 or more, None, or links=False"
    if not n.links and n.subject:
        yield "is a subject and has links=False; facts link their subject, so leave one of them out"
    if not n.links and n.unique:
        yield "is unique and has links=False; an attribute that only forbids is written links=False, limit=1"


# --------------------------------------------------------------------------------------------------- default namespaces
def _defaults() -> Iterable[Namespace]:
    yield Namespace("customer", 0, unique=True, limit=1, shared_at=None, hub_at=1000, subject=True)
    yield Namespace("merge", 0, limit=50, shared_at=None, hub_at=100)
    for name in ("user_id", "crm_id"):
        yield Namespace(name, 1, unique=True, limit=1, shared_at=None, hub_at=1000)
    for name in ("loyalty_id", "card_hash"):
        yield Namespace(name, 2, limit=3, shared_at=3, hub_at=20)
    yield Namespace("email", 3, limit=5, shared_at=3, hub_at=100, personal=True, normalize=normalize.email)
    yield Namespace("email_sha256", 3, limit=5, shared_at=3, hub_at=100, normalize=normalize.lower)
    yield Namespace("phone", 4, limit=5, shared_at=3, hub_at=100, personal=True, normalize=normalize.phone())
    yield Namespace("name_dob_postcode", 6, limit=12, shared_at=2, hub_at=12)
    for name in ("device_id", "idfa", "gaid", "idfv"):
        yield Namespace(name, 10, limit=5, shared_at=2, hub_at=100, normalize=normalize.device)
    for name in ("cookie", "ga_client_id"):
        yield Namespace(name, 20, limit=50, shared_at=2, hub_at=50, normalize=normalize.opaque, subject=True)


DEFAULTS: Mapping[str, Namespace] = {n.name: n for n in _defaults()}
"""The namespaces of docs IDENTITY, "Default namespaces"; an app's own declarations come instead of them."""
