"""The report as one HTML page: no scripts, nothing from elsewhere, light and dark, every value escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from c360.ops.diff import Report
from c360.ops.diff.compare import AS_OF, IDENTIFIERS, MEMBERS, VIEWS, Counts, Example

TEXT = 200  # characters of a value that are shown

STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5b6470; --paper: #ffffff; --line: #d5dae0; --bar: #2f6fb3;
  --wash: #f3f5f8; --old: #8a4b00; --new: #0b5d2e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b3; --paper: #15181c; --line: #343b44;
  --bar: #6aa9e9; --wash: #1e2329; --old: #f0b46a; --new: #7fd6a0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; } h3 { font-size: 1rem; overflow-wrap: anywhere; }
p.note, caption { color: var(--soft); text-align: left; }
dl { display: flex; flex-wrap: wrap; gap: 1rem; }
dl div { background: var(--wash); border-radius: .4rem; padding: .6rem 1rem; min-width: 8rem; }
dt { color: var(--soft); } dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.v { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .9rem; }
td.old { color: var(--old); } td.new { color: var(--new); }
.track { background: var(--wash); border-radius: .2rem; height: .8rem; width: 12rem; }
.bar { background: var(--bar); border-radius: .2rem; height: .8rem; min-width: 1px; }
article { border-top: 1px solid var(--line); margin-top: 1rem; }
"""

MEANINGS = {
    MEMBERS: "who is in the profile",
    IDENTIFIERS: "its identifiers",
    AS_OF: "its newest event time",
    VIEWS: "what purposes see of it",
}
KINDS = {
    "changed": "changed",
    "only_in_first": "only in the first",
    "only_in_second": "only in the second",
    "moving": "moving",
}


def page(report: Report) -> str:
    """The whole document."""
    title = f"{escape(report.first)} and {escape(report.second)}"
    parts = [
        f"<h1>{title}</h1>",
        *_summary(report),
        *_attributes(report),
        *_examples(report),
        *_cut(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>c360 diff: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _summary(report: Report) -> Iterator[str]:
    tally = report.tally
    of = "a sample" if report.sampled is not None else "all profiles"
    yield (
        f"<p>{tally.differing:,} of {tally.compared:,} profiles differ ({percent(report.share)}), of {of}, both read up to"
        " one cut.</p>"
    )
    yield "<dl>"
    for name, n in (
        ("equal", tally.equal),
        ("changed", tally.changed),
        (f"only in {report.first}", tally.only_in_first),
        (f"only in {report.second}", tally.only_in_second),
        ("moving", tally.moving),
    ):
        yield f"<div><dt>{escape(name)}</dt><dd>{n:,}</dd></div>"
    yield "</dl>"
    if tally.moving:
        yield (
            '<p class="note">Moving profiles were told of whenever they were looked at, so their difference may be lag'
            " alone. They count neither as equal nor as changed.</p>"
        )


def _attributes(report: Report) -> Iterator[str]:
    tally = report.tally
    most = max((counts.changed for counts in tally.attributes.values()), default=0)
    yield '<h2 id="attributes">Attributes</h2>'
    yield '<div class="wide"><table aria-labelledby="attributes">'
    yield (
        "<caption>Profiles that are in both and in which the attribute differs; the sum of what was added to its numbers,"
        " and the largest single difference.</caption>"
    )
    head = ("Attribute", "", "Changed", f"Only in {report.first}", f"Only in {report.second}", "Sum", "Largest")
    yield (
        "<thead><tr>"
        + "".join(f'<th scope="col"{"" if i < 2 else _N}>{escape(name) or _HIDDEN}</th>' for i, name in enumerate(head))
        + "</tr></thead><tbody>"
    )
    for name, counts in sorted(tally.attributes.items(), key=lambda item: (-item[1].changed, item[0])):
        yield _attribute(name, counts, most, tally.changed)
    yield "</tbody></table></div>"


_N = ' class="n"'
_HIDDEN = '<span aria-hidden="true">&nbsp;</span>'


def _attribute(name: str, counts: Counts, most: int, changed: int) -> str:
    width = 100 * counts.changed / most if most else 0
    part = percent(counts.changed / changed) if changed else "0 %"
    label = f"{part} of the changed profiles"
    meaning = f' <span class="note">{MEANINGS[name]}</span>' if name in MEANINGS else ""
    bar = f'<div class="bar" style="width:{width:.1f}%"></div>' if counts.changed else ""
    total, largest = (signed(counts.total), signed(counts.largest)) if counts.numbers else ("", "")
    return (
        f'<tr><th scope="row">{escape(name)}{meaning}</th>'
        f'<td><div class="track" role="img" aria-label="{label}" title="{label}">{bar}</div></td>'
        f'<td class="n">{counts.changed:,}</td><td class="n">{counts.only_in_first:,}</td>'
        f'<td class="n">{counts.only_in_second:,}</td><td class="n">{total}</td><td class="n">{largest}</td></tr>'
    )


def _examples(report: Report) -> Iterator[str]:
    yield "<h2>Examples</h2>"
    examples = report.tally.chosen()
    if not examples:
        yield "<p>No profile differs.</p>"
    for example in examples:
        yield from _example(report, example)


def _example(report: Report, example: Example) -> Iterator[str]:
    yield f"<article><h3>{escape(example.profile_id)} — {KINDS[example.kind]}</h3>"
    if example.attributes:
        yield '<div class="wide"><table>'
        yield (
            f'<thead><tr><th scope="col">Attribute</th><th scope="col">{escape(report.first)}</th>'
            f'<th scope="col">{escape(report.second)}</th></tr></thead><tbody>'
        )
        for name, (a, b) in example.attributes.items():
            yield (
                f'<tr><th scope="row">{escape(name)}</th><td class="v old">{text(a)}</td>'
                f'<td class="v new">{text(b)}</td></tr>'
            )
        yield "</tbody></table></div>"
    yield "</article>"


def _cut(report: Report) -> Iterator[str]:
    yield "<h2>The cut</h2>"
    yield (
        f"<p>Both versions had read what is before these offsets when most profiles were compared; it took {report.rounds}"
        f" {'round' if report.rounds == 1 else 'rounds'}.</p>"
    )
    yield '<details><summary>Offsets</summary><table><thead><tr><th scope="col">Topic and partition</th>'
    yield '<th scope="col" class="n">Offset</th></tr></thead><tbody>'
    for name, offset in report.cut.items():
        yield f'<tr><th scope="row">{escape(name)}</th><td class="n">{offset:,}</td></tr>'
    yield "</tbody></table></details>"


def text(value: Any) -> str:
    """A JSON value as it may stand in HTML, cut where it is long."""
    if value is None:
        return "–"
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape(said if len(said) <= TEXT else said[: TEXT - 1] + "…")


def percent(part: float) -> str:
    """Two places below one per cent, where the first is what is looked for."""
    return f"{100 * part:.2f} %" if 0 < part < 0.01 else f"{100 * part:.1f} %"


def signed(number: Any) -> str:
    return f"{number:+,f}"
