"""Metrics of a worker in Prometheus text format. Names, labels and meanings: `docs/reference/metrics.md`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from c360.agents.asking import AskingAgent
from c360.agents.calling import Caller
from c360.agents.consent import ConsentAgent
from c360.agents.door import DoorAgent
from c360.agents.erasure import ErasureAgent
from c360.agents.govern import Govern
from c360.agents.identity import IdentityAgent, IdentityTask
from c360.agents.projection import ProjectionAgent, ProjectionTask
from c360.codecs.avro import Counts
from c360.engine.global_table import GlobalTable
from c360.engine.lag import records_left
from c360.engine.loop import Loop, Phase
from c360.engine.standby import Copies
from c360.engine.teller import Teller
from c360.engine.transport import TP, Reader

Labels = Mapping[str, str]
# Why a link joins nobody (c360/identity/resolve.py), without what comes after the colon.
REASONS = ("unique", "limit", "cannot_link", "quarantine", "identifier_inactive", "subject_shared", "subject_hub")


@dataclass
class Page:
    """Metric families in the order they were first named."""

    families: dict[str, tuple[str, str, list[tuple[Labels, float]]]] = field(default_factory=dict)

    def add(self, name: str, kind: str, help_text: str, labels: Labels, value: float) -> None:
        self.families.setdefault(name, (kind, help_text, []))[2].append((labels, value))

    def totals(self, prefix: str, labels: Labels, counts: Iterable[tuple[str, str, float]]) -> None:
        """Counters `{prefix}{name}_total`: name, help text, value each."""
        for name, text, value in counts:
            self.add(f"{prefix}{name}_total", "counter", text, labels, value)

    def text(self) -> str:
        lines = []
        for name, (kind, help_text, samples) in self.families.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            for labels, value in samples:
                said = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
                number = "+Inf" if value == math.inf else value
                lines.append(f"{name}{{{said}}} {number}" if said else f"{name} {number}")
        return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def lag_of(loops: Iterable[Loop], reader: Reader) -> dict[str, int]:
    """Records that each agent still has to read, as far as its tasks run."""
    out = {}
    for loop in loops:
        positions: dict[TP, int] = {}
        for task in list(loop.tasks.values()):
            if task.phase is Phase.RUNNING:
                positions |= task.next
        out[loop.agent.name] = sum(records_left(reader, positions).values())
    return out


def page_of(
    loops: Iterable[Loop],
    lag: Mapping[str, int],
    now_ms: int,
    tables: Iterable[GlobalTable] = (),
    tellers: Iterable[Teller] = (),
    callers: Iterable[Caller] = (),
) -> str:
    """The text of /metrics."""
    page = Page()
    for loop in loops:
        _loop(page, loop)
        name = loop.agent.name
        if name in lag:
            page.add("c360_lag_records", "gauge", "Records not yet read, all inputs.", {"agent": name}, lag[name])
        if isinstance(loop.agent, Govern):
            _govern(page, loop.agent)
        elif isinstance(loop.agent, IdentityAgent):
            _identity(page, loop.agent, loop)
        elif isinstance(loop.agent, ProjectionAgent):
            _projection(page, loop.agent, lag.get(name, 0), now_ms)
            _moves(page, loop, loop.agent)
        elif isinstance(loop.agent, ConsentAgent):
            _consent(page, loop.agent)
        elif isinstance(loop.agent, DoorAgent):
            _door(page, loop.agent)
        elif isinstance(loop.agent, ErasureAgent):
            _erasure(page, loop.agent)
        elif isinstance(loop.agent, AskingAgent):
            _asking(page, loop.agent)
    for table in tables:
        _table(page, table)
    for teller in tellers:
        _teller(page, teller)
    for caller in callers:
        _caller(page, caller)
    return page.text()


def _loop(page: Page, loop: Loop) -> None:
    metrics = loop.metrics
    agent = {"agent": loop.agent.name}
    page.add("c360_records_total", "counter", "Records processed.", agent, metrics.records)
    page.add(
        "c360_process_cpu_seconds_total", "counter", "CPU time in processors.", agent, round(metrics.process_cpu_s, 6)
    )
    page.add(
        "c360_mail_total", "counter", "Messages between tasks of this process, not in the log.", agent, metrics.mail
    )
    page.add("c360_commits_total", "counter", "Transactions committed.", agent, metrics.commits)
    page.add("c360_commit_seconds_total", "counter", "Time in commits.", agent, round(metrics.commit_s, 6))
    page.add("c360_commit_seconds_max", "gauge", "Longest commit so far.", agent, round(metrics.commit_s_max, 6))
    page.add("c360_restored_records_total", "counter", "Changelog records restored.", agent, metrics.restored_records)
    page.add("c360_restore_seconds_total", "counter", "Time in restores.", agent, round(metrics.restore_s, 6))
    page.add(
        "c360_restore_left_records", "gauge", "Changelog records still to restore.", agent,
        sum(p.left for p in loop.progress),
    )  # fmt: skip
    copies = loop.standby.copies if loop.standby is not None else Copies()
    for name, kind, text, value in (
        ("standby_tasks", "gauge", "Copies of tasks that others run.", copies.tasks),
        ("standby_lag_records", "gauge", "Changelog records that the copies are behind.", copies.left),
        ("standby_records_total", "counter", "Changelog records copied.", copies.records),
        ("standby_failures_total", "counter", "Times that copying failed and waited.", copies.failures),
    ):
        page.add(f"c360_{name}", kind, text, agent, value)
    for error, count in sorted(metrics.recoveries.items()):
        page.add(
            "c360_recoveries_total", "counter", "Errors recovered from, by class.", {**agent, "error": error}, count
        )
    page.add("c360_held_inputs", "gauge", "Partitions that wait at a record.", agent, len(loop.held))
    page.add("c360_shut_seconds", "gauge", "How long nothing may leave; 0 while it may.", agent, round(loop.shut_s, 3))
    tasks = list(loop.tasks.values())
    for phase in (Phase.RESTORING, Phase.RUNNING):
        count = sum(t.phase is phase for t in tasks)
        page.add("c360_tasks", "gauge", "Tasks of this process by phase.", {**agent, "phase": phase.value}, count)
    size = 0
    for task in tasks:
        state = task.state
        if task.phase is Phase.RUNNING and state is not None:
            size += state.store.size_bytes()
    page.add("c360_state_bytes", "gauge", "Local state of running tasks.", agent, size)


def _table(page: Page, table: GlobalTable) -> None:
    labels, copied = {"table": table.name}, table.copied
    page.add("c360_copy_age_seconds", "gauge", "How old what the copy holds is.", labels, round(table.age(), 3))
    page.totals(
        "c360_copy_",
        labels,
        (
            ("records", "Records copied.", copied.records),
            ("rebuilds", "Topics copied again from their start.", copied.rebuilds),
            ("failures", "Times that copying failed and waited.", copied.failures),
        ),
    )


def _teller(page: Page, teller: Teller) -> None:
    labels, said = {"group": teller.group}, teller.said
    page.add(
        "c360_told_age_seconds", "gauge", "Since when nothing was told of all inputs.", labels, round(teller.age(), 3)
    )
    page.totals(
        "c360_told_",
        labels,
        (
            ("statements", "Statements written.", said.statements),
            ("failures", "Times that telling failed and waited.", said.failures),
        ),
    )


def _govern(page: Page, agent: Govern) -> None:
    for source, counters in agent.counters.items():
        labels = {"source": source if agent.plan.govern == 1 else f"{source}@{agent.plan.govern}"}
        page.add(
            "c360_source_paused", "gauge", "1 while nothing of a source is read.", labels, int(agent.paused(source))
        )
        page.totals(
            "c360_",
            labels,
            (
                ("source_records", "Raw records read.", counters.records),
                ("source_bytes", "Bytes of their values.", counters.bytes),
                ("governed", "Governed records written.", counters.governed),
                ("retracted", "Rows taken back.", counters.retracted),
                ("duplicates", "Repeats dropped.", counters.duplicates),
                ("stale", "Row states dropped that were not newer than the held one.", counters.stale),
                ("ignored", "Records that no type claims or that say nothing.", counters.ignored),
                ("links", "Link facts written: what no record had said before.", counters.links),
                ("suppressed", "Records dropped: of customers who are forgotten.", counters.suppressed),
            ),
        )
        if (schemas := agent.schemas(source)) is not None:
            for name, text, counts in (
                ("records", "Values and keys read by a schema.", schemas.records),
                ("misfits", "Of its values, those that did not fit.", schemas.misfits),
            ):
                for ref, count in sorted((str(ref), count) for ref, count in counts.items()):
                    page.add(f"c360_schema_{name}_total", "counter", text, {**labels, "schema": ref}, count)
        for reason, count in sorted(counters.misfits.items()):
            page.add("c360_misfits_total", "counter", "Misfits by reason.", {**labels, "reason": reason}, count)
        for namespace, count in sorted(counters.blocked.items()):
            page.add(
                "c360_identifiers_blocked_total", "counter", "Identifiers that say nothing about anybody, or are not valid.",
                {**labels, "namespace": namespace}, count,
            )  # fmt: skip

    if isinstance(agent.registry, Counts):
        page.totals(
            "c360_registry_",
            {"agent": agent.name},
            (
                ("questions", "Ids that the schema registry was asked for.", agent.registry.questions),
                ("unanswered", "Times that it did not answer.", agent.registry.unanswered),
            ),
        )


def _consent(page: Page, agent: ConsentAgent) -> None:
    counters = agent.counters
    for (purpose, status), count in sorted(counters.decisions.items()):
        page.add(
            "c360_consent_decisions_total",
            "counter",
            "Decisions that count.",
            {"purpose": purpose, "status": status},
            count,
        )
    for purpose, count in sorted(counters.conflicts.items()):
        page.add(
            "c360_consent_conflicts_total", "counter", "Times that a grant met a refusal of its instant.",
            {"purpose": purpose}, count,
        )  # fmt: skip
    for (source, reason), count in sorted(counters.misfits.items()):
        page.add(
            "c360_consent_misfits_total", "counter", "Records of decisions put aside.",
            {"source": source, "reason": reason}, count,
        )  # fmt: skip
    page.totals(
        "c360_consent_",
        {"agent": agent.name},
        (
            ("unchanged", "Decisions that told nothing new.", counters.unchanged),
            ("dropped", "Decisions on identifiers that are suppressed.", counters.dropped),
            ("ignored", "Records that decide nothing, or that no type claims.", counters.ignored),
            ("written", "Records of identifiers written, tombstones included.", counters.written),
            ("erased", "Identifiers forgotten.", counters.erased),
        ),
    )


def _identity(page: Page, agent: IdentityAgent, loop: Loop) -> None:
    labels = {"agent": agent.name}
    counters = agent.counters
    page.totals(
        "c360_identity_",
        labels,
        (
            ("facts", "Link facts read.", counters.facts),
            ("facts_novel", "Link facts that were news.", counters.novel),
            ("misfits", "Records put aside: no facts or messages.", counters.misfits),
            ("assignments", "Assignments written.", counters.assignments),
            ("conflicts", "Assignments whose refused links are others than before.", counters.conflicts),
            ("wide", "Decisions on 200 connected nodes or more.", counters.wide),
        ),
    )
    for way, value in (("local", counters.local), ("remote", counters.remote)):
        page.add(
            "c360_identity_messages_total", "counter", "Messages of nodes.", {**labels, "way": way}, value
        )  # fmt: skip
    page.add(
        "c360_identity_component_nodes_max", "gauge", "Most connected nodes so far.", labels, counters.largest_component
    )
    page.add("c360_identity_block_nodes_max", "gauge", "Largest block so far.", labels, counters.largest_block)
    totals: Counter[str] = Counter()
    for task in list(loop.tasks.values()):
        if task.phase is Phase.RUNNING and isinstance(task.processor, IdentityTask):
            totals.update(task.processor.totals)
    for status in ("hub", "shared"):
        page.add(
            "c360_identity_inactive_nodes", "gauge", "Nodes that link nobody now.",
            {**labels, "status": status}, totals[status],
        )  # fmt: skip
    page.add("c360_identity_block_nodes", "gauge", "Nodes in blocks.", labels, totals["members"])
    page.add("c360_identity_live_nodes", "gauge", "Nodes with a live link.", labels, totals["live"])
    for reason in REASONS:
        page.add(
            "c360_identity_refused_links", "gauge", "Live links that join nobody now.",
            {**labels, "reason": reason}, totals[f"deferred {reason}"],
        )  # fmt: skip


def _projection(page: Page, agent: ProjectionAgent, lag: int, now_ms: int) -> None:
    labels = {"agent": agent.name}
    counters = agent.counters
    page.totals(
        "c360_",
        labels,
        (
            ("folded", "Governed records folded.", counters.folded),
            ("profiles_written", "Profile records written, tombstones included.", counters.written),
            ("profiles_unchanged", "Changed profiles whose record is the same as before.", counters.unchanged),
            ("profiles_removed", "Tombstones written.", counters.tombstones),
        ),
    )
    behind = max(0.0, (now_ms - counters.newest_cause) / 1000) if lag and counters.newest_cause else 0.0
    page.add(
        "c360_freshness_seconds", "gauge", "How old the newest folded raw record is; 0 without lag.", labels, behind
    )


def _erasure(page: Page, agent: ErasureAgent) -> None:
    labels, counters = {"agent": agent.name}, agent.counters
    page.totals(
        "c360_erasure_",
        labels,
        (
            ("requests", "Identifiers asked to be forgotten.", counters.requested),
            ("proven", "Certificates written.", counters.proven),
            ("lifts", "Lifts asked for.", counters.lifted),
            ("keys", "Data keys destroyed.", counters.keys),
            ("misfits", "Requests put aside.", counters.misfits),
        ),
    )
    page.add("c360_erasure_open", "gauge", "Requests that wait for something.", labels, counters.open)


def _asking(page: Page, agent: AskingAgent) -> None:
    counters = agent.counters
    page.totals(
        "c360_outside_",
        {"agent": agent.name},
        (
            ("looked", "Identifiers of records looked at.", counters.looked),
            ("due", "Questions written.", counters.asked),
            ("fresh", "Identifiers that were asked about not long ago.", counters.fresh),
            ("left_out", "Identifiers of the forgotten, and such as say nothing.", counters.left_out),
            ("noted", "Questions kept until people agree.", agent.withheld.noted),
            ("agreed", "Questions asked as somebody has agreed.", agent.withheld.agreed),
            ("expired", "Questions that nobody agreed to within refresh.", agent.withheld.expired),
            ("late", "Withheld questions that are not the last any more, or came twice.", agent.withheld.late),
        ),
    )


def _caller(page: Page, caller: Caller) -> None:
    labels, counters = {"agent": caller.outside.agent}, caller.counters
    page.totals(
        "c360_outside_",
        labels,
        (
            ("asked", "Questions taken up.", counters.asked),
            ("calls", "Calls of the function.", counters.calls),
            ("retries", "Calls that failed and are made again.", counters.retries),
            ("answered", "Questions answered, those with None among them.", counters.answered),
            ("nothing", "Answers that are None.", counters.nothing),
            ("remembered", "Answers from a call for another subject.", counters.remembered),
        ),
    )
    for name, text, counts in (
        ("failed", "Questions put aside, by reason.", counters.failed),
        ("withheld", "Questions that may not be asked, by reason.", counters.withheld),
        ("shut", "Times that nothing might be asked, by reason.", counters.shut),
    ):
        for reason, count in sorted(counts.items()):
            page.add(f"c360_outside_{name}_total", "counter", text, {**labels, "reason": reason}, count)
    page.add("c360_outside_waiting", "gauge", "Questions at hand, not answered yet.", labels, counters.waiting)
    page.add(
        "c360_outside_breaker_open", "gauge", "1 while calls wait as they failed.", labels, int(caller.breaker.is_open)
    )


def _door(page: Page, agent: DoorAgent) -> None:
    labels, counters = {"agent": agent.name}, agent.counters
    page.totals(
        "c360_",
        labels,
        (
            ("delivered", "Profiles that left, anew or changed.", counters.delivered),
            ("taken_back", "Tombstones written: what was delivered may stay no longer.", counters.removed),
            ("undelivered", "Profiles looked at whose far side holds the same already.", counters.unchanged),
            (
                "door_misfits",
                "Profiles put aside, as something in them or the sink's function failed.",
                counters.misfits,
            ),
            ("door_timers", "Profiles looked at as a decision had ended.", counters.timers),
            ("door_swept", "Profiles looked at as all were.", counters.swept),
            ("door_beside", "Records taken in of versions that are not live.", counters.beside),
            ("door_swapped", "Profiles that have gone over to the version that is live.", counters.swapped),
            ("receipts", "Receipts given for erasures.", counters.receipts),
        ),
    )
    for reason, count in sorted(counters.held_back.items()):
        page.add(
            "c360_held_back_total", "counter", "Profiles looked at that may not leave, by reason.",
            {**labels, "reason": reason}, count,
        )  # fmt: skip
    for reason, count in sorted(counters.shut.items()):
        page.add(
            "c360_shut_total",
            "counter",
            "Times that nothing might leave, by reason.",
            {**labels, "reason": reason},
            count,
        )
    age_s = 0.0 if agent.fence is None else agent.fence.age_ms / 1000
    page.add("c360_fence_age_seconds", "gauge", "Of the oldest statement that it rests on, asked last.", labels, age_s)


def _moves(page: Page, loop: Loop, agent: ProjectionAgent) -> None:
    labels, counters = {"agent": agent.name}, agent.counters
    moves = counters.moves
    page.totals(
        "c360_",
        labels,
        (
            ("puts", "Fragments taken into a profile of another subject.", moves.puts),
            ("adds", "News of such fragments taken in.", moves.adds),
            ("drops", "Fragments taken out of a profile of another subject.", moves.drops),
            ("fragments_moved", "Fragments that have left a profile for another.", moves.moved),
            ("parts_sent", "Messages to other partitions.", moves.sent),
            ("fragments_large", "Times that a fragment of more than 100 KB was stored.", counters.large),
        ),
    )
    page.add("c360_fragment_bytes_max", "gauge", "Largest such fragment.", labels, counters.largest)
    processors = [task.processor for task in list(loop.tasks.values()) if task.phase is Phase.RUNNING]
    slots = sum(p.moves.held for p in processors if isinstance(p, ProjectionTask))
    page.add("c360_slots", "gauge", "Fragments held in profiles of other subjects.", labels, slots)
