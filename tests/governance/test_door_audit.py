"""What doors do not deliver is in the audit log: counted by reason, once, without a name, in chains that hold."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from c360.governance.audit import Record, decode_record
from c360.ops.audit import verify
from tests.governance.door_shop import Street

MINUTE = timedelta(minutes=1)


def log_of(t: Street, who: str = "sink:crm-sync") -> list[Record]:
    t.settle()
    found = [decode_record(value or b"") for _, value in t.read(t.plan.audit)]
    assert verify(t.plan, t.cluster).findings == []
    return [record for record in found if record.entry.who == who]


def counts(t: Street, who: str = "sink:crm-sync") -> Counter[str]:
    total: Counter[str] = Counter()
    for record in log_of(t, who):
        total.update({reason: int(n) for reason, n in record.entry.after.items()})
    return total


def people(t: Street, n: int, first: int = 1) -> None:
    for k in range(first, first + n):
        t.customer(k, f"Ann {k}")


def test_refusals_are_told_once_by_reason_and_never_by_name() -> None:
    with Street() as t:
        people(t, 40)
        for k in range(1, 11):
            t.rights.decide(f"crm:{k}", "marketing", "granted")
        assert len(t.sink("crm-sync")) == 10
        t.later()
        for k in range(1, 6):
            t.rights.decide(f"crm:{k}", "marketing", "withdrawn")
        t.settle()
        t.later(MINUTE)
        t.settle()
        told = counts(t)
        assert told["withdrawn"] == 5
        assert told["unknown"] >= 30
        for record in log_of(t):
            entry = record.entry
            assert (entry.what, entry.about, entry.reason) == ("deny", (), "")
            assert "Ann" not in repr(entry)
            assert "crm:" not in repr(entry)
        again = len(log_of(t))
        for _ in range(5):  # nobody new is refused, so there is nothing to tell, however often they are looked at
            people(t, 40)
            t.later(MINUTE)
            t.settle()
        assert len(log_of(t)) == again
        assert counts(t) == told


def test_many_refusals_are_few_entries() -> None:
    with Street() as t:
        for batch in range(20):
            people(t, 25, first=1 + 25 * batch)
            t.later()
            t.settle()
        t.later(MINUTE)
        assert counts(t)["unknown"] == 500
        assert len(log_of(t)) <= 2 * t.plan.partitions, "in 20 s, of each task the first and the rest"


def test_a_crash_or_a_lost_disk_tells_nothing_twice_and_goes_on_with_the_chain() -> None:
    with Street() as t:
        people(t, 20)
        t.settle()
        people(t, 20, first=21)
        t.crash()
        t.later(MINUTE)
        people(t, 20, first=41)
        t.lose_disk()
        t.later(MINUTE)
        t.later(MINUTE)
        assert counts(t)["unknown"] == 60
        assert len({record.writer for record in log_of(t)}) == t.plan.partitions


def test_a_reset_begins_other_chains_and_all_of_them_hold() -> None:
    with Street() as t:
        people(t, 20)
        before = {record.writer for record in log_of(t)}
        t.reset("sink:crm-sync")
        t.later()
        after = {record.writer for record in log_of(t)}
        assert before < after
        assert len(before) == t.plan.partitions


def test_what_is_taken_back_while_nothing_may_leave_is_told_when_it_may_again() -> None:
    with Street() as t:
        people(t, 10)
        for k in range(1, 11):
            t.rights.decide(f"crm:{k}", "marketing", "granted")
        t.settle()
        t.later(MINUTE)
        before = counts(t)
        t.rights.stopped = True
        t.advance(timedelta(seconds=10))
        for k in range(1, 5):
            t.rights.append(f"crm:{k}", "marketing", "withdrawn")
        assert len(t.sink("crm-sync")) == 6
        assert counts(t) == before, "the fence is not held"
        t.rights.stopped = False
        t.later()
        t.settle()
        t.later(MINUTE)
        assert (counts(t) - before)["withdrawn"] == 4
