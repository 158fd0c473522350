"""Resets beside the rights of people: what doors look at is whole at every step, and nobody comes back."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from c360.engine.transport import TP
from c360.errors import NeedsOperator
from c360.governance.audit import decode_record
from c360.governance.fence import Place, Statement, ask, decode_statement
from c360.ops.audit import Run
from c360.ops.reset import execute_reset, plan_reset, reset_told
from c360.testing import TestDriver
from c360.testing.faults import Crash, FaultyCluster
from tests.engine.test_crash import every_step
from tests.governance.decided import CONSENT, FENCE, choice, compacted, driver, statuses
from tests.governance.forget_shop import NOW, open_shop, shop
from tests.governance.test_forget import erased, nobody_is_back


def test_erasure_is_never_reset_and_that_is_told() -> None:
    with TestDriver(shop(), now=NOW) as t:
        erased(t)
        t.stop()
        suppressed = compacted(t, t.plan.suppressed)
        run = Run(t.plan, t.cluster, who="kim", reason="ticket 7", random=lambda n: b"\7" * n, clock=lambda: t.now_ms)
        with pytest.raises(NeedsOperator, match="erasure is never reset"), run:
            reset_told(t.plan, t.cluster, "erasure", run)
        (entry,) = [e for _, v in t.read(t.plan.audit) if v and (e := decode_record(v).entry) and e.what == "reset"]
        assert (entry.after["stage"], entry.who) == ("refused", "kim")
        t.start()
        nobody_is_back(t)
        assert compacted(t, t.plan.suppressed) == suppressed


def test_no_reset_empties_what_doors_look_at() -> None:
    with TestDriver(open_shop(), now=NOW) as t:
        t.send("orders", "7", {"id": "o1", "customer": "7"})
        t.settle()
        t.stop()
        plan = t.plan
        looked_at = {plan.consent, plan.suppressed, plan.keys, plan.fence}
        assert looked_at <= t.cluster.admin().topics().keys()
        for agent in (a.name for a in plan.agents if a.name not in ("govern", "erasure")):
            assert looked_at.isdisjoint(plan_reset(plan, t.cluster, agent).clears), agent
        assert looked_at.isdisjoint((*plan.agent("govern").writes, *plan.agent("govern").changelogs))


def _may_deliver(t: TestDriver) -> str:
    """What a door would be told by what stands in the topics."""
    said: dict[Place, list[Statement]] = {}
    for _, value in t.read(FENCE):
        if value is not None:
            statement = decode_statement(value)
            said.setdefault(statement.input, []).append(statement)
    reader = t.cluster.reader()
    places = [TP(CONSENT, p) for p in range(t.plan.partitions)]
    held = {Place(*tp): end for tp, end in reader.ends(places).items()}
    reader.close()
    return ask([Place("choices", p) for p in range(2)], said, held, now=t.now_ms, fence_max_age_ms=1000).why


def test_a_reset_of_consent_that_is_killed_at_any_step_leaves_every_refusal_where_doors_look() -> None:
    """And the fence does not open before all is read again."""
    for plan in every_step(Crash):
        with driver() as t:
            t.send("choices", None, choice("crm:7", "withdrawn"))
            t.send("choices", None, choice("crm:8"))
            t.settle()
            assert _may_deliver(t) == "open"
            t.stop()
            known = compacted(t)
            faulty = FaultyCluster(t.cluster, plan)
            with suppress(Crash):
                execute_reset(t.plan, faulty, plan_reset(t.plan, faulty, "consent"))
            t.cluster.producer(f"{t.plan.agent('consent').group}.reset")  # what its broker ends, 15 s later
            assert compacted(t) == known
            t.advance(timedelta(seconds=2))
            assert _may_deliver(t) == "stale"
            execute_reset(t.plan, t.cluster, plan_reset(t.plan, t.cluster, "consent"))
            assert (compacted(t), _may_deliver(t)) == (known, "stale")
            t.start()
            assert statuses(t) == {"crm:7": {"marketing": "withdrawn"}, "crm:8": {"marketing": "granted"}}
            assert _may_deliver(t) == "open"
            t.verify()
