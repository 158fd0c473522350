"""Names: the label under which an identifier is written, and the one place that makes it.

A label is `namespace:value`. Where a source says whose customers its records are about, the value is `tenant/value`, so that
tenants never meet. Where the namespace is personal, the label is the token of all that. Knows namespaces by what they do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from c360.errors import Misfit, UsageError
from c360.governance.keys import MasterKeys, Random
from c360.governance.tokens import MARK

TENANT = "/"  # between a tenant and a value
LABEL_BYTES = 512  # as of labels without a tenant
KEPT = 1 << 14  # tokens of a namespace at hand; making one takes 3 to 8 µs, with what makes its value canonical
_TOKEN = re.compile(rf"[^:]*:{MARK}[a-z2-7]{{24}}\Z")


class Kind(Protocol):
    """What names have to know of a namespace (`c360.identity.namespace`)."""

    @property
    def name(self) -> str: ...
    @property
    def personal(self) -> bool: ...
    def label(self, value: str) -> str:
        """`namespace:value`, the value made canonical. Raises Misfit for one that identifies nobody."""


class Tokens(Protocol):
    """What makes tokens (`c360.governance.tokens`)."""

    def token(self, label: str) -> str: ...


def of_tenant(label: str, tenant: object) -> str:
    """The label of a tenant's identifier. Raises Misfit where it is not said whose it is."""
    said = str(tenant).strip() if tenant is not None else ""
    if not said or TENANT in said or "\0" in said:
        raise Misfit(
            "no-tenant", "the record does not say whose customer it is about: no tenant, or one with / or a NUL"
        )
    namespace, _, value = label.partition(":")
    owned = f"{namespace}:{said}{TENANT}{value}"
    if len(owned) > LABEL_BYTES:
        raise Misfit("no-subject", f"the {namespace} identifier is longer than {LABEL_BYTES}, its tenant included")
    return owned


def is_veiled(label: str) -> bool:
    """Whether a label has the form of a token."""
    return _TOKEN.match(label) is not None


class Names:
    """Makes the labels of an app. `tokens` None: of an app that needs no keys, or of a process that was given none."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"Names({self._tokens!r})"

    def label(self, namespace: Kind, value: str, tenant: object = None) -> str:
        """The label of an identifier. Raises Misfit for a value that identifies nobody."""
        return self.written(namespace, namespace.label(value), tenant)

    def written(self, namespace: Kind, clear: str, tenant: object = None) -> str:
        """The same from the label in clear, which is not to be written where the namespace is personal."""
        owned = clear if tenant is None else of_tenant(clear, tenant)
        return self.token(owned) if namespace.personal else owned

    def labels(self, namespace: Kind) -> Callable[[str], str]:
        """`label` of one namespace, without a tenant, for many: one that is not personal costs nothing here."""
        if not namespace.personal:
            return namespace.label

        @lru_cache(KEPT)
        def label(value: str) -> str:
            return self.token(namespace.label(value))

        return label

    def asked(self, namespace: Kind, value: str, *, tenants: bool = False) -> str:
        """The label of what a person typed; a token is taken as it is. `tenants`: what is before the first / is the tenant."""
        if namespace.personal and is_veiled(f"{namespace.name}:{value}"):
            return f"{namespace.name}:{value}"
        tenant, slash, rest = value.partition(TENANT)
        return self.label(namespace, rest, tenant) if tenants and slash else self.label(namespace, value)

    def veil(self, label: str) -> str:
        """A label that says nothing: a token as it is, of everything else its token."""
        return label if is_veiled(label) else self.token(label)

    def token(self, label: str) -> str:
        """The token of a label in clear. Raises UsageError without keys."""
        if self._tokens is None:
            raise UsageError(
                f"{label.partition(':')[0]} identifiers are written as tokens, and nobody can make one without the master key:"
                " set C360_KEYS to its file or service, or give the token itself, such as email:~k3v…"
            )
        return self._tokens.token(label)


class Vault:
    """What a process of an app that needs keys holds: the master keys, the names that rest on its secret, and randomness."""

    def __init__(self, app: str, master: MasterKeys, names: Names, random: Random) -> None:
        self.app, self.master, self.names, self.random = app, master, names, random

    def __repr__(self) -> str:
        return f"Vault({self.app}, {self.master!r})"
