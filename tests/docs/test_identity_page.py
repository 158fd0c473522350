"""`docs/identity.md` has the default namespaces as the code has them, every reason, and the settings there are."""

from __future__ import annotations

import inspect

from c360 import App
from c360.identity.namespace import Namespace
from c360.identity.rules import DEFAULTS
from c360.ops.identity.ask import REASONS
from tests.docs.pages import ROOT, rows, sections

PAGE = sections(ROOT / "docs" / "identity.md")


def row_of(name: str, n: Namespace) -> list[str]:
    return [
        name,
        str(n.priority),
        "yes" if n.unique else "",
        str(n.limit),
        *(str(x or "-") for x in (n.shared_at, n.hub_at)),
    ]


def test_the_default_namespaces_are_those_of_the_code() -> None:
    expected = [row_of(f"`{name}`", namespace) for name, namespace in DEFAULTS.items()]
    assert rows(PAGE["Default namespaces"])[1:] == [*expected, row_of("*custom*", Namespace("x"))]


def test_every_reason_is_explained() -> None:
    listed = rows(PAGE["Settings of an identifier"].partition("| reason |")[2])
    names = {name.strip("` ").partition(":")[0] for row in listed for name in row[0].split(",")} - {""}
    assert names == REASONS.keys()


def test_every_setting_is_listed() -> None:
    declared = {*inspect.signature(App.identifier).parameters} - {"self", "namespace"}
    listed = {
        row[0].strip("`").partition("=")[0]
        for row in rows(PAGE["Settings of an identifier"].partition("| reason |")[0])[1:]
    }
    assert listed == declared
