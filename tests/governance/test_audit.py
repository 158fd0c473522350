"""The audit log: what was taken out, changed, moved, doubled or cut off is found, and what is personal is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import msgspec
import pytest

from c360.errors import UsageError
from c360.governance.audit import (
    LISTED,
    Entry,
    Finding,
    Head,
    chained,
    check,
    decode_record,
    encode_record,
    examine,
    head_of,
    tips_of,
    verify,
    without_personal,
)
from c360.governance.keys import AppSecret
from c360.governance.tokens import Tokens

APP = "shop"
TOKEN = "~" + "a2" * 12
ENTRY = Entry(who="ann", what="erase", at=5, reason="ticket 7", about=("crm:7",), after={"stage": "suppress"})


def log_of(seed: int, size: int = 12) -> list[bytes]:
    """Of three writers; the one that is a command has read the others."""
    dice = random.Random(seed)
    heads: dict[str, Head] = {}
    log: list[bytes] = []
    for n in range(size):
        writer = dice.choice(["erasure", "door-0", "cli"])
        seen = tips_of(APP, log) if writer == "cli" else None
        record = chained(APP, msgspec.structs.replace(ENTRY, at=n), writer, heads.get(writer), seen)
        heads[writer] = head_of(record)
        log.append(encode_record(record))
    return log


def problems(log: list[bytes], heads: Mapping[str, Head] | None = None, *, whole: bool = True) -> set[str]:
    return {finding.problem for finding in verify(APP, log, heads=heads, whole=whole)}


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_done_to_a_log_is_found(seed: int) -> None:
    dice, log = random.Random(seed), log_of(seed)
    heads = examine(APP, log).heads
    assert verify(APP, log, heads=heads) == []
    n = dice.randrange(len(log))
    record = decode_record(log[n])
    name = (record.writer, record.number)
    without = log[:n] + log[n + 1 :]
    changed = msgspec.structs.replace(record, entry=msgspec.structs.replace(record.entry, reason="another"))
    forged = chained(
        APP, changed.entry, record.writer, Head(record.number - 1, record.last) if record.number else None, record.seen
    )
    taken = verify(APP, without, heads=heads)
    assert [(f.writer, f.number) for f in taken] == [name]
    assert taken[0].problem in ("missing", "cut")
    assert ("altered", *name) in {
        f[:3] for f in verify(APP, [*log[:n], encode_record(changed), *log[n + 1 :]], heads=heads)
    }
    assert ("altered", *name) in {
        f[:3] for f in verify(APP, [*log[:n], encode_record(forged), *log[n + 1 :]], heads=heads)
    }
    assert verify(APP, [*log, log[n]], heads=heads) == [Finding("doubled", *name, len(log))]
    assert problems([*log[:n], b"{}", *log[n + 1 :]], heads) >= {"unreadable"}


@pytest.mark.parametrize("seed", range(30))
def test_records_of_a_chain_in_another_order_are_found(seed: int) -> None:
    dice, log = random.Random(seed), log_of(seed)
    one, other = sorted(dice.sample([n for n, d in enumerate(log) if decode_record(d).writer == "erasure"], 2))
    log[one], log[other] = log[other], log[one]
    assert problems(log) & {"reordered", "missing"}
    assert "reordered" in problems(log)


def test_a_cut_end_is_found_by_heads_that_were_kept_and_by_others_who_saw_it() -> None:
    first = chained(APP, ENTRY, "door-0", None)
    second = chained(APP, ENTRY, "door-0", head_of(first))
    command = chained(APP, ENTRY, "cli-1", None, {"door-0": head_of(second)})
    cut = [encode_record(first), encode_record(command)]
    assert verify(APP, cut) == [Finding("cut", "door-0", 1, -1)]
    assert verify(APP, [encode_record(command)]) == [Finding("cut", "door-0", 1, -1)], "a whole chain"
    assert verify(APP, [encode_record(first)]) == [], "nobody knows of it"
    assert verify(APP, [encode_record(first)], heads={"door-0": head_of(second)}) == [Finding("cut", "door-0", 1, -1)]


def test_a_beginning_that_retention_has_cut_is_no_finding() -> None:
    log = log_of(3)
    heads = examine(APP, log).heads
    for n in range(1, len(log)):
        left = {decode_record(data).writer for data in log[n:]}
        known = {writer: head for writer, head in heads.items() if writer in left}
        assert verify(APP, log[n:], heads=known, whole=False) == []
        assert problems(log[n:], known), "of a whole log it is"


def test_one_seen_before_it_was_written_is_found() -> None:
    first = chained(APP, ENTRY, "door-0", None)
    command = chained(APP, ENTRY, "cli-1", None, {"door-0": head_of(first)})
    assert verify(APP, [encode_record(command), encode_record(first)]) == [Finding("reordered", "door-0", 0, 1)]


def test_equal_records_have_equal_bytes() -> None:
    seen = {"a": Head(1, "x"), "b": Head(2, "y")}
    one, other = chained(APP, ENTRY, "c", None, seen), chained(APP, ENTRY, "c", None, dict(reversed(seen.items())))
    assert encode_record(one) == encode_record(other)
    assert decode_record(encode_record(one)) == one


def test_a_run_names_only_what_nobody_named_before_and_what_is_named_answers_for_the_rest() -> None:
    log: list[bytes] = []
    named: list[int] = []
    for n in range(40):
        seen = tips_of(APP, log)
        named.append(len(seen))
        log.append(encode_record(chained(APP, ENTRY, f"cli/{n}", None, seen)))
    assert max(named) == 1
    assert verify(APP, log) == []
    for n in range(len(log) - 1):
        assert verify(APP, log[:n] + log[n + 1 :]) == [Finding("cut", f"cli/{n}", 0, -1)]
    assert set(tips_of(APP, log)) == {"cli/39"}, "only the last can go unnoticed, unless its head was kept"


def test_runs_that_did_not_know_of_each_other_are_both_named_by_the_next() -> None:
    one, other = (chained(APP, ENTRY, name, None) for name in ("cli/a", "cli/b"))
    log = [encode_record(one), encode_record(other)]
    tips = tips_of(APP, log)
    assert tips == {"cli/a": head_of(one), "cli/b": head_of(other)}
    more = chained(APP, ENTRY, "cli/a", head_of(one))
    log += [encode_record(chained(APP, ENTRY, "cli/c", None, tips)), encode_record(more)]
    assert set(tips_of(APP, log)) == {"cli/a", "cli/c"}, "what has moved on since is to be named again"
    assert tips_of(APP, [encode_record(more), encode_record(one)]) == {"cli/a": head_of(more)}


def test_records_of_another_app_are_foreign_and_nobody_s_tips() -> None:
    theirs = [encode_record(chained("bank", ENTRY, "cli/a", None))]
    assert verify("bank", theirs) == []
    assert verify(APP, theirs) == [Finding("foreign", "cli/a", 0, 0)]
    assert tips_of(APP, [*theirs, b"{}"]) == {}


def test_a_forged_number_costs_neither_time_nor_memory() -> None:
    forged = encode_record(chained(APP, ENTRY, "cli/a", Head(1 << 60, "x")))
    begun = time.monotonic()
    found = verify(APP, [forged])
    assert time.monotonic() - begun < 5
    assert {f.problem for f in found} == {"missing"}
    assert len(found) == LISTED
    below = msgspec.structs.replace(chained(APP, ENTRY, "cli/b", None), number=-1)
    assert verify(APP, [encode_record(below)]) == [Finding("unreadable", "", -1, 0)]


def test_a_record_has_these_bytes() -> None:
    record = chained(APP, ENTRY, "cli/0a", Head(0, "ff"), {"erasure": Head(3, "ee")})
    assert encode_record(record) == (
        b'{"format":1,"app":"shop","writer":"cli/0a","number":1,"last":"ff","seen":{"erasure":[3,"ee"]},'
        b'"entry":{"who":"ann","what":"erase","at":5,"reason":"ticket 7","about":["crm:7"],"before":{},'
        b'"after":{"stage":"suppress"}},"hash":"e63c7ba0b54b2812d3f0580f75473fb6d23d20e92aa76ef4b06e92a865ae1304"}'
    )


@pytest.mark.parametrize(
    "changed",
    [{"about": ("email:ann@mail.org",)}, {"about": ("phone:447700900123",)}, {"reason": "ann@mail.org asked"},
     {"before": {"email": "ann@mail.org"}}, {"after": {"x": "to ann@mail.org"}}, {"reason": "called phone:447700900123"},
     {"before": {"profiles": "crm:7, phone:447700900123"}}, {"after": {"ann@mail.org": "x"}},
     {"about": ("=email:ann@mail.org",)}, {"about": ("email:" + TOKEN + "x",)}],
)  # fmt: skip
def test_what_is_personal_is_refused_and_not_shown(changed: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        check(msgspec.structs.replace(ENTRY, **changed), {"email", "phone"})
    assert "ann" not in str(caught.value)
    assert "7700" not in str(caught.value)
    left = without_personal(msgspec.structs.replace(ENTRY, **changed), {"email", "phone"})
    assert "ann@" not in repr(left)
    assert "7700" not in repr(left)
    check(left, {"email", "phone"})


def test_bytes_that_are_no_text_are_refused() -> None:
    typed = b"ticket \xff".decode("utf-8", "surrogateescape")
    with pytest.raises(UsageError, match="not UTF-8"):
        check(msgspec.structs.replace(ENTRY, reason=typed), ())
    encode_record(chained(APP, without_personal(msgspec.structs.replace(ENTRY, reason=typed), ()), "cli", None))


def test_tokens_and_numbers_of_customers_are_taken() -> None:
    told = msgspec.structs.replace(
        ENTRY,
        about=("crm:7", f"email:{TOKEN}"),
        before={"profiles": f"email:{TOKEN}, crm:9"},
        reason="by phone: ticket 8",
    )
    check(told, {"email", "phone"})
    assert without_personal(told, {"email", "phone"}) == told


def test_the_token_of_an_app_is_one_that_the_log_takes() -> None:
    token = Tokens(AppSecret(APP, bytes(32))).token("email:ann@mail.org")
    check(msgspec.structs.replace(ENTRY, about=(token,)), {"email"})
