"""The oracle against hand-computed answers, and the engine against the oracle on random histories."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import c360
from c360 import App, Projection, Record, normalize
from c360.ops import dlq
from c360.profile.attribute import Attribute, Kind
from c360.testing.oracle.plain import parse, written
from c360.testing.oracle.profiles import Found, as_of_text, value_of
from tests.testing.shop import change
from tests.testing.world import NOW, NOW_MS, World

DAY = 86_400_000
KINDS: tuple[Kind, ...] = get_args(Kind)


# ------------------------------------------------------------------------------------------------- known answers
def events(*values: Any, at: int = 0) -> list[Found]:
    return [Found(False, 0, at, v) for v in values]


def rows(*values: Any, at: int = 0) -> list[Found]:
    return [Found(True, 0, at, v) for v in values]


@pytest.mark.parametrize(
    ("attribute", "found", "answer"),
    [
        (Attribute("a", "count"), events(True, True) + rows(True), 3),
        (Attribute("a", "flag"), [], False),
        (Attribute("a", "flag"), rows(True), True),
        (Attribute("a", "total", "decimal"), events(Decimal("0.005"), Decimal("0.015")), "0.02"),  # each half even
        (Attribute("a", "total", "float"), events(*[0.1] * 7), "0.70"),
        (Attribute("a", "total", "decimal"), [], "0.00"),
        (Attribute("a", "average", "int", scale=0), events(1, 2), "2"),  # 1.5, half even
        (Attribute("a", "average", "int", scale=0), events(2, 3), "2"),  # 2.5, half even
        (Attribute("a", "average", "int"), [], None),
        (Attribute("a", "minimum", "decimal"), events(Decimal("9.50")) + rows(Decimal("10")), "9.50"),
        (Attribute("a", "maximum", "datetime"), events(datetime(2026, 1, 1, tzinfo=UTC)), "2026-01-01T00:00:00Z"),
        (Attribute("a", "first", "text"), [*events("b", at=5), *events("c", "a", at=1)], "a"),
        (Attribute("a", "newest", "text"), [*events("b", at=5), *rows("c", at=5), *events("z", at=1)], "c"),
        (Attribute("a", "prefer", "text"), [Found(False, 1, 9, "late"), Found(True, 0, 1, "trusted")], "trusted"),
        (Attribute("a", "top", "text", n=2), events("x", "y", "y", "w") + rows("x"), ["x", "y"]),
        (Attribute("a", "collect", "date"), events(date(2026, 1, 2), date(2026, 1, 1)), ["2026-01-01", "2026-01-02"]),
        (Attribute("a", "distinct", "decimal"), events(Decimal("1"), Decimal("1.0")) + rows(Decimal("1E+1")), 2),
        (Attribute("a", "count", within_days=2), events(1, at=0) + events(1, at=DAY) + events(1, at=3 * DAY), 2),
    ],
)
def test_attributes_mean_what_the_page_says(attribute: Attribute, found: list[Found], answer: Any) -> None:
    assert value_of(attribute, found, today=2) == answer


def test_json_is_read_without_rounding_and_written_in_one_way() -> None:
    assert parse(b' {"a": [1, "\xc3\xa9"], "a": 2} ') == {"a": 2}
    assert written({"b": [1e22, 1e-5, -1.5e-5, 1e-7, 2.0, 10**20], "a": 'é"\n'}) == (
        '{"b":[1e22,0.00001,-0.000015,1e-7,2.0,100000000000000000000],"a":"é\\"\\n"}'
    )
    for bad in (b"", b"NaN", b'"\\ud800"', b"\xff", b"\xef\xbb\xbf1", b"[1,]", b"[" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            parse(bad)
    assert as_of_text(NOW_MS) == "2026-11-02T09:00:00Z"
    assert as_of_text(NOW_MS + 50) == "2026-11-02T09:00:00.050Z"


# ------------------------------------------------------------------------------------------------ random histories
class Uid(str): ...


class Mail(str): ...


class Born(str): ...


class Values(Record):
    """A field of each type, and what links."""

    who: Uid
    at: datetime | None = None
    login: Uid | None = None
    mails: list[Mail] | None = None
    born: Born | None = None
    int_: int | None = None
    float_: float | None = None
    decimal_: Decimal | None = None
    datetime_: datetime | None = None
    date_: date | None = None
    text_: str | None = None
    bool_: bool | None = None
    json_: dict[str, Any] | None = None


class Event(Values):
    id: str | None = None


class Row(Values):
    key: int


def declared() -> App:
    """An app that reads both and has no projection yet."""
    app = App("random", partitions=2)
    app.identifier("uid", unique=True)(Uid)
    app.identifier("mail", normalize=normalize.email)(Mail)
    app.identifier("born", links=False, limit=1)(Born)
    app.source("events", event_id="id", at="at", subject="who", window=timedelta(days=1))(Event)
    app.cdc("rows", key="key", subject="who", at="at")(Row)

    def mail_of(record: Values) -> Mail | None:
        return Mail(record.text_ + "@old.org") if record.text_ else None

    @app.enrich(Event, since=NOW, before=mail_of)
    def guessed(event: Event) -> Mail | None:
        return Mail(f"{event.int_}@new.org") if event.int_ is not None else None

    @app.enrich(Row, since=NOW)
    def asked(row: Row) -> Mail | None:
        return mail_of(row)

    return app


SOME: dict[str, list[Any]] = {
    "int": [0, 1, -1, 9, 10, 2**63 - 1, -(2**63)],
    "float": [0.0, -0.0, 0.1, 0.2, 2.5, 10.0, 1e22, -1e-7, 5],
    "decimal": ["9.5", "9.50", "10", "0", "-0", "1E+3", "0.005", "-0.025", 7, 2.5],
    "datetime": [
        "2026-11-02T12:00:00Z",
        "2026-11-02T14:00:00+02:00",
        "2026-11-02T12:00:00.500Z",
        "1969-12-31T23:59:59.000001Z",
    ],
    "date": ["2026-11-02", "1969-12-31"],
    "text": ["", "a", "a b", "aa", 'b"', "b\\", "é", "😀", "\u2028", "\n"],
    "bool": [False, True],
    "json": [{}, {"b": 1, "a": [None, "é", 1.0, True]}, {"a": [None, "é", 1.0, True], "b": 1}, {"a": 1e22}],
}
LINKS: dict[str, list[Any]] = {
    "login": ["1", "2", "3 ", "null", "", 4],
    "mails": [[], ["a@b.org"], ["A@b.org ", "c@b.org", "a@b.org"], ["none", "x@example.com", "c@b.org"], None],
    "born": ["1980-01-01", "1981-01-01", "'N/A'", "x" * 600, "a\x00b"],
}
POSSIBLE: dict[str, set[str]] = {
    "total": {"int", "float", "decimal"},
    "average": {"int", "float", "decimal"},
    "minimum": SOME.keys() - {"json"},
    "maximum": SOME.keys() - {"json"},
}
RESULTS: dict[str, Any] = {
    "count": int, "distinct": int, "flag": bool, "total": Decimal, "average": Decimal | None,
    "top": list, "collect": list,
}  # fmt: skip
TIMES = [NOW_MS + n for n in (-40 * DAY, -3 * DAY, -DAY, -5, 0, 1000, DAY, 400 * DAY)]
CHANGES = [datetime.fromtimestamp((NOW_MS + n) / 1000, UTC) for n in (-3 * DAY, -DAY + 1, 0, 1000, 400 * DAY)]


@dataclass(frozen=True)
class Step:
    """One thing that happens: `do` gets the world."""

    text: str
    do: Callable[[World], None]

    def __repr__(self) -> str:
        return self.text


@st.composite
def eras(draw: st.DrawFn) -> list[datetime | None]:
    """When an attribute's logic changed, the earliest first; None: from ever on."""
    if draw(st.integers(0, 2)):
        return [None]
    times = sorted(draw(st.sets(st.sampled_from(CHANGES), min_size=1, max_size=2)))
    return [*draw(st.sampled_from([[], [None]])), *times]


@st.composite
def inputs_of(draw: st.DrawFn, kind: Kind, of: str) -> list[Any]:
    inputs: list[Any] = [getattr(Event, f"{of}_"), getattr(Row, f"{of}_")]
    if kind in ("count", "flag") and draw(st.booleans()):
        inputs = [Event, Row]
    return draw(st.permutations(inputs))[: draw(st.integers(1, 2))]


@st.composite
def projections(draw: st.DrawFn) -> App:
    app = declared()
    body: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    for n in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS))
        of = draw(st.sampled_from(sorted(POSSIBLE.get(kind, SOME.keys()))))
        options: dict[str, Any] = {"within": draw(st.sampled_from([None, None, timedelta(days=1), timedelta(days=30)]))}
        if kind in ("top", "distinct", "collect"):
            options["limit"] = draw(st.integers(1, 4))
        if kind in ("total", "average"):
            options["scale"] = draw(st.sampled_from([0, 2, 18]))
        attribute = None
        for since in draw(eras()):
            own = dict(options)
            if draw(st.booleans()):
                own["where"] = draw(st.sampled_from([lambda r: r.int_ is None, lambda r: (r.text_ or "z") > "a"]))
            if since is not None:
                own |= {"since": since, "before": attribute}
            attribute = getattr(c360, kind)(*draw(inputs_of(kind, of)), **own)
        body[f"a{n}"] = attribute
        annotations[f"a{n}"] = RESULTS.get(kind, Any)
    app.projection("p")(type("P", (Projection,), {**body, "__annotations__": annotations}))
    return app


def payload(**known: Any) -> st.SearchStrategy[dict[str, Any]]:
    some = {f"{name}_": st.sampled_from(values) for name, values in SOME.items()}
    some |= {name: st.sampled_from(values) for name, values in LINKS.items()}
    times = st.sampled_from(TIMES).map(lambda t: datetime.fromtimestamp(t / 1000, UTC).isoformat())
    who = st.sampled_from(["1", "2", " 3", "3"])
    return st.fixed_dictionaries({"who": who, **known}, optional={"at": times, **some})


def send_event(value: Any, at: int | None, partition: int) -> Step:
    def do(world: World) -> None:
        world.send("events", "k", value, timestamp=at, partition=partition)

    return Step(f"event {value} {at} → {partition}", do)


def send_row(op: str, lsn: int, value: dict[str, Any] | None, key: int) -> Step:
    def do(world: World) -> None:
        snapshot = "true" if op == "r" else "false"
        after = change(op, lsn, value, snapshot=snapshot)
        world.send("rows", None if op == "t" else json.dumps({"key": key}), after, partition=key % 2)

    return Step(f"{op} {lsn} {value}", do)


def restart(world: World) -> None:
    world.stop()
    world.start()


def restore(world: World) -> None:
    world.stop()
    world.stores.stores.clear()
    world.start()


def replay_all(world: World) -> None:
    world.settle()
    dlq.replay(world.plan, world.cluster, topic="events", reason=None)


def replay_fixed(world: World) -> None:
    """Bring the first misfit of the events back, with another content and an id that others may have."""
    world.settle()
    misfits = [m for m in world.values("random.dlq") if m["topic"] == "events"]
    for m in misfits[:1]:
        headers = [("c360-origin", str(m["offset"]).encode()), ("c360-time", str(m["timestamp"]).encode())]
        fixed = {"who": "2", "id": "x", "int_": 7}
        world.send("random.replay.events", "k", fixed, partition=m["partition"], headers=headers)


def tomorrow(world: World) -> None:
    world.now_ms += DAY


TURNS = {
    "settle": World.settle, "restart": restart, "restore": restore, "tomorrow": tomorrow,
    "replay": replay_all, "fix": replay_fixed,
}  # fmt: skip


HAPPENINGS = ["event", "event", "event", "bad", "put", "put", "toast", "again", "delete", "truncate", *TURNS]
BAD: list[Any] = [b"", b"[]", b"{", None, {"who": " "}, {"who": "1", "int_": "1"}, {"who": []}]


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    happened: list[Step] = []
    lsn, truncated = 10, False
    for _ in range(draw(st.integers(1, 14))):
        match draw(st.sampled_from(HAPPENINGS)):
            case "event":
                value = draw(payload(id=st.sampled_from([None, "x", "y", "z"])))
                happened.append(send_event(value, draw(st.sampled_from([None, *TIMES])), draw(st.integers(0, 1))))
            case "bad":
                happened.append(send_event(draw(st.sampled_from(BAD)), None, 0))
            case "put" | "toast" | "again" as how:
                lsn += 1
                at = draw(st.sampled_from([lsn, lsn, lsn - 5]))
                key = draw(st.integers(0, 3))
                row = draw(payload(key=st.just(key)))
                if how == "toast" and not truncated:  # no database updates a row that a truncate took
                    row["text_"] = "__debezium_unavailable_value"
                happened.append(send_row("r" if how == "again" else "u", at, row, key))
            case "delete":
                lsn += 1
                happened.append(send_row("d", lsn, None, draw(st.integers(0, 3))))
            case "truncate":
                lsn += 1
                truncated = True
                happened.append(send_row("t", lsn, None, draw(st.integers(0, 1))))
            case turn:
                happened.append(Step(turn, TURNS[turn]))
    return happened


@settings(max_examples=200)
@given(projections(), steps())
def test_the_engine_agrees_with_the_oracle_on_every_history(app: App, history: list[Step]) -> None:
    world = World(app)
    note(repr(world.plan.projections[0].declarations))
    for step in history:
        step.do(world)
    world.settle()
    report = world.report()
    assert report.examples == []
    assert report.complete
    assert report.lag == 0
