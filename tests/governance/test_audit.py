"""The audit log: what was taken out, changed, moved, doubled or cut off is found, and what is personal is refused."""

from __future__ import annotations

import random

import msgspec
import pytest

from c360.errors import UsageError
from c360.governance.audit import (
    Entry,
    Finding,
    Head,
    chained,
    check,
    decode_record,
    encode_record,
    head_of,
    heads_of,
    verify,
)

ENTRY = Entry(who="ann", what="erase", at=5, reason="ticket 7", about=("crm:7",), after={"stage": "suppress"})


def log_of(seed: int, size: int = 12) -> list[bytes]:
    """Of three writers; the one that is a command has read the others."""
    dice = random.Random(seed)
    heads: dict[str, Head] = {}
    log = []
    for n in range(size):
        writer = dice.choice(["erasure", "door-0", "cli"])
        seen = heads if writer == "cli" else None
        record = chained(msgspec.structs.replace(ENTRY, at=n), writer, heads.get(writer), seen)
        heads[writer] = head_of(record)
        log.append(encode_record(record))
    return log


def problems(log: list[bytes], heads: dict[str, Head] | None = None, *, whole: bool = True) -> set[str]:
    return {finding.problem for finding in verify(log, heads=heads, whole=whole)}


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_done_to_a_log_is_found(seed: int) -> None:
    dice, log = random.Random(seed), log_of(seed)
    heads = heads_of(log)
    assert verify(log, heads=heads) == []
    n = dice.randrange(len(log))
    record = decode_record(log[n])
    name = (record.writer, record.number)
    without = log[:n] + log[n + 1 :]
    changed = msgspec.structs.replace(record, entry=msgspec.structs.replace(record.entry, reason="another"))
    forged = chained(
        changed.entry, record.writer, Head(record.number - 1, record.last) if record.number else None, record.seen
    )
    taken = verify(without, heads=heads)
    assert [(f.writer, f.number) for f in taken] == [name]
    assert taken[0].problem in ("missing", "cut")
    assert ("altered", *name) in {f[:3] for f in verify([*log[:n], encode_record(changed), *log[n + 1 :]], heads=heads)}
    assert ("altered", *name) in {f[:3] for f in verify([*log[:n], encode_record(forged), *log[n + 1 :]], heads=heads)}
    assert verify([*log, log[n]], heads=heads) == [Finding("doubled", *name, len(log))]
    assert problems([*log[:n], b"{}", *log[n + 1 :]], heads) >= {"unreadable"}


@pytest.mark.parametrize("seed", range(30))
def test_records_of_a_chain_in_another_order_are_found(seed: int) -> None:
    dice, log = random.Random(seed), log_of(seed)
    one, other = sorted(dice.sample([n for n, d in enumerate(log) if decode_record(d).writer == "erasure"], 2))
    log[one], log[other] = log[other], log[one]
    assert problems(log) & {"reordered", "missing"}
    assert "reordered" in problems(log)


def test_a_cut_end_is_found_by_heads_that_were_kept_and_by_others_who_saw_it() -> None:
    first = chained(ENTRY, "door-0", None)
    second = chained(ENTRY, "door-0", head_of(first))
    command = chained(ENTRY, "cli-1", None, {"door-0": head_of(second)})
    cut = [encode_record(first), encode_record(command)]
    assert verify(cut) == [Finding("cut", "door-0", 1, -1)]
    assert verify([encode_record(command)]) == [Finding("cut", "door-0", 1, -1)], "a whole chain"
    assert verify([encode_record(first)]) == [], "nobody knows of it"
    assert verify([encode_record(first)], heads={"door-0": head_of(second)}) == [Finding("cut", "door-0", 1, -1)]


def test_a_beginning_that_retention_has_cut_is_no_finding() -> None:
    log = log_of(3)
    heads = heads_of(log)
    for n in range(1, len(log)):
        left = {decode_record(data).writer for data in log[n:]}
        known = {writer: head for writer, head in heads.items() if writer in left}
        assert verify(log[n:], heads=known, whole=False) == []
        assert problems(log[n:], known), "of a whole log it is"


def test_one_seen_before_it_was_written_is_found() -> None:
    first = chained(ENTRY, "door-0", None)
    command = chained(ENTRY, "cli-1", None, {"door-0": head_of(first)})
    assert verify([encode_record(command), encode_record(first)]) == [Finding("reordered", "door-0", 0, 1)]


def test_equal_records_have_equal_bytes() -> None:
    seen = {"a": Head(1, "x"), "b": Head(2, "y")}
    one, other = chained(ENTRY, "c", None, seen), chained(ENTRY, "c", None, dict(reversed(seen.items())))
    assert encode_record(one) == encode_record(other)
    assert decode_record(encode_record(one)) == one


@pytest.mark.parametrize(
    "changed",
    [{"about": ("email:ann@mail.org",)}, {"about": ("phone:447700900123",)}, {"reason": "ann@mail.org asked"},
     {"before": {"email": "ann@mail.org"}}, {"after": {"x": "to ann@mail.org"}}],
)  # fmt: skip
def test_what_is_personal_is_refused_and_not_shown(changed: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        check(msgspec.structs.replace(ENTRY, **changed), {"email", "phone"})
    assert "ann" not in str(caught.value)
    assert "7700" not in str(caught.value)


def test_tokens_and_numbers_of_customers_are_taken() -> None:
    check(msgspec.structs.replace(ENTRY, about=("crm:7", "email:" + "0a" * 16)), {"email"})
