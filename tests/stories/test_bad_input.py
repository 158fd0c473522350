"""Whatever is sent: what fits is folded, what does not is put aside with its reason, and the worker goes on."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from c360.ops import dlq
from tests.stories.notes import ROWS, plan_of
from tests.stories.sent import SECRET, Sent, note
from tests.stories.tools import (
    assert_verified,
    attributes,
    c360,
    stop,
    wait_for_rest,
    working,
)
from tests.testing.shop import change

BEFORE, AFTER = "tests.stories.notes:app", "tests.stories.notes:fixed"
UNSURE = "implementation-defined"


# ------------------------------------------------------------------------------------------------- kinds of bad input
def payloads(send: Sent) -> None:
    """Values that are wrong by themselves, each between good ones."""
    secret = SECRET.encode()
    deep = b'{"text":"t","anything":' + b"[" * 10_000 + secret + b"]" * 10_000 + b"}"
    for value, reason in (
        (secret, "not-json"),
        (b'{"text": "' + secret, "not-json"),
        (b'{"text": "' + secret + b'", "amount": NaN}', "not-json"),
        (b'{"text": "' + secret + b'", "amount": -Infinity}', "not-json"),
        (b'{"text": "' + secret + b'\x00"}', "not-json"),
        (b"\x00\x00" + secret, "not-json"),
        (b'{"text": "' + secret + b'\xff"}', "not-utf8"),
        (b'{"text": "t", "unknown": "' + secret + b'\xff"}', "not-utf8"),  # a field that nobody reads
        (secret.join([b'["', b'"]']), "not-an-object"),
        (None, "empty"),
        (b"", "empty"),
        (deep, "too-deep"),
        (deep.replace(b"anything", b"unknown "), "too-deep"),
        (note(None, [SECRET]), "wrong-type"),
        (note(None, SECRET, amount=SECRET), "wrong-type"),
        (note(None, SECRET, channel=SECRET), "wrong-type"),
        (note(None, SECRET, amount="NaN"), "out-of-range"),
        (note(None, SECRET, amount="Infinity"), "out-of-range"),
        (note(None, SECRET, amount=1).replace(b" 1}", b" 1e999}"), "out-of-range"),
        (json.dumps({"id": SECRET}).encode(), "missing-field"),
        (note(None, SECRET, at="10000-01-01T00:00:00Z"), "out-of-range"),
        (note(None, SECRET, at="0000-01-01T00:00:00Z"), "out-of-range"),
        (note(None, SECRET, at="0001-01-01T00:00:00+14:00"), "out-of-range"),
        (note(None, SECRET, at="2026-11-01T00:00:00"), "no-zone"),
        (note(None, SECRET, parts=0), "enrichment-failed"),
        (note(None, SECRET * 300_000), "too-large"),  # 5 MB
    ):
        send.good()
        send(b"bad", value, bad=reason)


def keys(send: Sent) -> None:
    """Of records whose subject is the key."""
    for key in (
        None,
        b"",
        b"  ",
        b"\xff" + SECRET.encode(),
        b"a\x00b",
        SECRET.encode() * 100,
        SECRET.encode() * 300_000,
    ):
        send(key, note(None), bad="no-subject")
        send.good()


def odd_but_good(send: Sent) -> None:
    """Nothing of this is put aside."""
    for value in (
        note("odd 1", "first", unknown={"x": [SECRET]}),
        note("odd 1", "second, with the same id and another text"),
        note("odd 2", "a\x00b", at="0001-01-01T00:00:00Z"),
        note("odd 3", "ends with the world", at="9999-12-31T23:59:59Z", amount="12.340"),
        note("odd 4", at="2026-11-01T00:00:00Z", unknown=SECRET * 300_000),  # 5 MB, of which little is read
        note("odd 5", at="2026-11-01T00:00:00Z", channel="shop"),
    ):
        send(b"odd", value, partition=0)


def rows(send: Sent) -> None:
    """A table's changes: partition by row, as Debezium does; a changed key is a delete and a create."""

    def row(id: int, op: str, lsn: int, after: Any, *, bad: str = "") -> None:
        value = json.dumps(change(op, lsn, after)).encode()
        send(json.dumps({"id": id}).encode(), value, bad=bad, to=ROWS, partition=id % 2)

    def address(id: int, owner: Any = "rows", city: Any = "Ulm", plan: str | None = None) -> dict[str, Any]:
        return {"id": id, "owner": owner, "city": city, "plan": plan}

    for id in range(4):
        row(id, "c", 10 + id, address(id))
    row(7, "d", 20, None)  # of a row that nobody knows
    row(1, "u", 21, address(1, city={"name": SECRET}), bad="wrong-type")
    row(2, "u", 22, {"id": 2, "owner": "rows"}, bad="missing-field")
    row(3, "u", 23, None, bad="missing-field")
    row(3, "x", 24, address(3, city=SECRET), bad="not-a-change")
    row(9, "u", 25, address(9, plan="__debezium_unavailable_value"), bad="unknown-row")
    row(0, "u", 26, address(0, owner="  "), bad="no-subject")
    row(0, "d", 30, None)  # its key becomes 5
    row(5, "c", 30, address(5, city="Jena"))
    row(2, "d", 31, None)
    send(b'{"id": 2}', None, to=ROWS)  # the tombstone after a delete
    send(SECRET.encode(), b"{" + SECRET.encode(), bad="not-json", to=ROWS)
    send(b"{}", json.dumps(change("d", 40, None)).encode(), bad="no-key", to=ROWS)


def json_files(send: Sent, shared: Path) -> None:
    """Every file as a record, as a field that is read, and as one that is not."""
    suite = shared / "data" / "bad-input" / "json-test-suite" / "parsing-half.jsonl"
    for line in suite.read_text().splitlines():
        case = json.loads(line)
        data, expect = base64.b64decode(case["bytes_base64"]), case["expect"]
        send(b"json", data, bad="" if expect == UNSURE else "*", either=expect == UNSURE)
        send.good()
        for name in (b"anything", b"unknown"):
            value = b'{"text":"json","' + name + b'":' + data + b"}"
            send(b"json", value, bad="*" if expect == "reject" else "", either=expect == UNSURE)


def naughty_strings(send: Sent, shared: Path) -> dict[str, str]:
    """As a value, each of a customer of its own; and as a key. Returns what the customers' texts must be."""
    strings = json.loads((shared / "data" / "bad-input" / "naughty-strings" / "blns-half.json").read_text())
    expected = {}
    for n, text in enumerate(strings):
        send(f"n{n}".encode(), note(None, text, anything={text: [text]}))
        expected[f"crm:n{n}"] = text
        key = unicodedata.normalize("NFC", text).strip()
        send(text.encode(), note(None, "by key"), bad="" if key else "no-subject")
        if key:
            send.notes[f"crm:{key}"] = send.notes.get(f"crm:{key}", 0) + 1
    return expected


# ------------------------------------------------------------------------------------------------------- the stories
@pytest.mark.timeout(300)
def test_what_does_not_fit_is_put_aside_with_its_reason_and_everything_else_is_folded(
    sent: Sent, kafka: str, shared: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with working(kafka, tmp_path / "state", log, BEFORE, STORY=sent.name) as process:
        payloads(sent)
        keys(sent)
        odd_but_good(sent)
        rows(sent)
        json_files(sent, shared)
        texts = naughty_strings(sent, shared)
        for _ in range(3):
            sent(b"three", note(None, SECRET))  # a derived value raises
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert process.poll() is None

        letters = sent.letters()
        assert letters.keys() - sent.either == sent.bad.keys()
        for at, (letter, *more) in letters.items():
            assert more == []
            if sent.bad.get(at, "*") != "*":
                assert letter.misfit.reason == sent.bad[at], letter.misfit.error
            assert SECRET not in letter.misfit.error
            assert re.match(r"[A-Za-z@].{15,}", letter.misfit.error), letter.misfit
        raised = [x.misfit for (x,) in letters.values() if x.misfit.reason == "enrichment-failed"]
        assert [m.traceback is not None and "ZeroDivisionError" in m.traceback for m in raised] == [True]
        (large,) = [x.misfit for (x,) in letters.values() if x.misfit.reason == "too-large"]
        assert large.size > 5_000_000
        assert large.sha256 is not None

        known = attributes(sent.plan, sent.cluster)
        for subject, count in sent.notes.items():
            assert known[subject]["notes"] == count, subject
        for subject, text in texts.items():
            assert (known[subject]["text"], known[subject]["anything"]) == (text, {text: [text]})
        assert (known["crm:odd"]["notes"], known["crm:odd"]["spent"]) == (5, "12.34")
        assert known["crm:odd"]["text"] == "ends with the world"
        assert (known["crm:rows"]["addresses"], known["crm:rows"]["city"]) == (3, "Jena")
        assert (known["crm:three"]["notes"], known["crm:three"]["half"]) == (3, None)
        derived = [x for x in dlq.read(sent.plan, sent.cluster) if x.key == b"crm:three"][-1].misfit
        assert (derived.reason, SECRET in derived.error) == ("derived-failed", False)
        assert "@derived value of customer@1 raised ValueError" in derived.error
        assert derived.traceback is not None
        assert "three cannot be halved" in derived.traceback
        assert_verified(sent.plan, sent.cluster)
        assert stop(process) == 0, log.read_text()
    assert SECRET not in log.read_text()


def misfits_fixed_later(send: Sent) -> None:
    """Notes from a channel that the app learns of only later, two of them with one id, among those it knows."""
    for n in range(4):
        send.good(to=f"crm:{n}")
        send(str(n).encode(), note(f"phone {n}", channel="phone"), bad="wrong-type")
    send(b"0", note("phone 1", channel="phone"), bad="wrong-type", partition=1)
    send(b"0", note("phone 1", channel="phone"), bad="wrong-type", partition=1)
    send(b"0", note(None, channel="pigeon"), bad="wrong-type")
    send.producer.flush()


@pytest.mark.timeout(300)
def test_misfits_are_replayed_after_a_fix_and_counted_once_also_when_replayed_again_or_govern_is_reset(
    sent: Sent, kafka: str, tmp_path: Path
) -> None:
    log, state = tmp_path / "log", tmp_path / "state"
    plan, cluster = sent.plan, sent.cluster

    def cli(*arguments: str, says: int = 0) -> Any:
        done = c360(kafka, AFTER, *arguments, "--json", STORY=sent.name)
        assert done.returncode == says, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    with working(kafka, state, log, BEFORE, STORY=sent.name) as process:
        misfits_fixed_later(sent)
        wait_for_rest(plan, cluster, process, log)
        assert stop(process) == 0
    assert {s: a["notes"] for s, a in attributes(plan, cluster).items()} == {f"crm:{n}": 1 for n in range(4)}

    fixed = plan_of(sent.name, "phone")
    folded = {"crm:0": 3, "crm:1": 2, "crm:2": 2, "crm:3": 2}
    with working(kafka, state, log, AFTER, STORY=sent.name) as process:
        for _ in range(2):
            assert cli("dlq", "replay")["replayed"] == 7
            wait_for_rest(fixed, cluster, process, log)
            assert {s: a["notes"] for s, a in attributes(plan, cluster).items()} == folded
            assert_verified(fixed, cluster)
        assert stop(process) == 0
    assert "customer@1 has read what govern wrote" in cli("reset", "govern", "--to-earliest", says=4)
    cluster.admin().delete_group(fixed.agent("customer@1").group)
    assert cli("reset", "govern", "--to-earliest", "--reason", "a test", "--execute")["executed"]
    with working(kafka, state, log, AFTER, "--only", "govern", STORY=sent.name) as process:
        wait_for_rest(fixed, cluster, process, log, ("govern",))
        assert stop(process) == 0
    assert cli("reset", "customer@1", "--to-earliest", "--reason", "a test", "--execute")["executed"]
    with working(kafka, state, log, AFTER, STORY=sent.name) as process:
        wait_for_rest(fixed, cluster, process, log)
        assert {s: a["notes"] for s, a in attributes(plan, cluster).items()} == folded
        assert_verified(fixed, cluster)
        assert stop(process) == 0
    assert SECRET not in log.read_text()


@pytest.mark.timeout(300)
def test_a_profile_that_would_be_too_large_for_its_topic_stays_as_it_is_and_the_rest_goes_on(
    sent: Sent, kafka: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with working(kafka, tmp_path / "state", log, BEFORE, STORY=sent.name) as process:
        for n in range(20):  # 18 MB of texts that the profile would hold
            sent(b"large", note(None, f"{n} {SECRET}" * 47_000))
            sent.good()
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        letters = [x.misfit for x in dlq.read(sent.plan, sent.cluster) if x.misfit.reason == "too-large"]
        assert 0 < len(letters) < 6
        assert {(m.stage, m.topic) for m in letters} == {("customer@1", f"{sent.name}.governed.notes.v1")}
        known = attributes(sent.plan, sent.cluster)
        assert (known["crm:large"]["notes"], known["crm:good"]["notes"]) == (20 - len(letters), 20)
        assert_verified(sent.plan, sent.cluster)
        assert stop(process) == 0, log.read_text()
    assert SECRET not in log.read_text()
