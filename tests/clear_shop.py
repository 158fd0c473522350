"""The example shop without purposes, consent, erasure and sinks, and with nothing sealed: for stories of machinery.

They compare what two runs wrote byte by byte; keys are random, so what is sealed is other bytes in each run. Else it is the
source of the example. Benchmarks that were measured before there were keys run it, too.
"""

from __future__ import annotations

import ast
from pathlib import Path

from c360 import App

SHOP = Path(__file__).parents[1] / "examples" / "shop" / "app.py"
RIGHTS = {"consent", "erasure", "sink", "purpose"}


class _Clear(ast.NodeTransformer):
    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        return None if _said(node.decorator_list) & RIGHTS else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if _said(node.decorator_list) & RIGHTS else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if _said([node.value]) & RIGHTS else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "purposes"]
        if _said([node]) == {"identifier"}:
            node.keywords.append(ast.keyword("personal", ast.Constant(False)))
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        classified = isinstance(node.value, ast.Name) and node.value.id in ("Personal", "Sensitive")
        return self.generic_visit(node.slice if classified else node)


def _said(calls: list[ast.expr]) -> set[str]:
    """The names of the methods of an app among these calls."""
    return {call.func.attr for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)}


exec(compile(ast.fix_missing_locations(_Clear().visit(ast.parse(SHOP.read_text(encoding="utf-8")))), str(SHOP), "exec"))
app: App = globals()["app"]
assert not (app.plan().needs_keys)
assert not (app.plan().doors)
assert not (app.plan().consents)
