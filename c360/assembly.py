"""Put a worker together: a plan, a cluster and stores become loops on threads, and one place that watches them."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from c360.agents.asking import AskingAgent
from c360.agents.consent import ConsentAgent
from c360.agents.contracts import Wire
from c360.agents.door import DoorAgent
from c360.agents.erasure import ErasureAgent
from c360.agents.fencing import INPUTS_S
from c360.agents.govern import SHARE_OF, Govern
from c360.agents.identity import IdentityAgent
from c360.agents.projection import ProjectionAgent
from c360.agents.suppression import Suppression
from c360.clock import Clock, system
from c360.codecs.avro import Registry
from c360.engine.agent import Agent
from c360.engine.global_table import GlobalTable
from c360.engine.lag import ends_of_records
from c360.engine.loop import InlineExecutor, Loop, LoopSettings
from c360.engine.restore import last_positions
from c360.engine.teller import EVERY_S, PASS_S, Teller, Told
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.engine.turnstile import Turnstile
from c360.errors import BrokerAway, C360Error, NeedsOperator, UsageError
from c360.governance.keys import MasterKeys
from c360.governance.names import Vault
from c360.ops import beside, contracts, control, keys, sources, topics
from c360.ops.audit import Run
from c360.ops.beginning import begin_lives
from c360.ops.contracts import Subjects
from c360.ops.trim import trim
from c360.plan import Plan
from c360.tables.store import Stores

T = TypeVar("T")
_M_ARENA_MAX = -8  # malloc.h

log = logging.getLogger("c360.worker")

AWAY_S = 1.0
LOOK_S = 5.0  # between two looks at which topics there are
RESET_S = 20.0  # so long a command may be at a reset, or members of a group that is reset may take to leave it
CONTROL_S = 0.25  # and at what was decided of versions
# A merge takes three commits, and up to eight where its tasks are in several processes; without identity a change takes two
# (docs/decisions/0014, 0015).
MANY_HOPS_SHARE = 0.75
TRIM_LOOKS = 12  # so many of them between two deletions of what loops have read


@dataclass(frozen=True)
class Shared:
    """What the agents of one process have in common.

    `cluster`: None for a caller that runs nothing; `governance`: of an app that has something to ask it; `vault`: of one that
    needs keys. `live`: the version of a projection that sinks deliver; `retired`: whether that was said of a projection's
    agent, `idle`: whether an agent is of a version that was never built, or is retired, `reset`: whether one is being reset.
    `registry`: of schemas that values name. `wires`: how doors write, by their agents' names; JSON those that are not there.
    `cloudevents`: whether what leaves has these attributes in its headers. `paused`: whether a source is; `monotonic`:
    seconds, for their rates, None: they do not count. `fence_max_age_ms`: how old may be what a door knows of people's
    decisions; `inputs_s`: between its looks at which partitions these come in.
    """

    cluster: Cluster | None = None
    governance: GlobalTable | None = None
    vault: Vault | None = None
    clock: Clock = system
    live: Callable[[str], int] | None = None
    registry: Registry | None = None
    fence_max_age_ms: int = 1000
    inputs_s: float = INPUTS_S
    retired: Callable[[str], bool] | None = None
    idle: Callable[[str], bool] | None = None
    reset: Callable[[str], bool] = lambda agent: False
    wires: Mapping[str, Wire] = field(default_factory=dict)
    cloudevents: bool = False
    paused: Callable[[str], bool] = lambda source: False
    monotonic: Callable[[], float] | None = None


def governance_of(
    plan: Plan,
    cluster: Cluster,
    stores: Stores,
    clock: Clock,
    only: Sequence[str] = (),
    *,
    monotonic: Callable[[], float] = time.monotonic,
    look_s: float = 0.1,
) -> GlobalTable | None:
    """The process's copy of `plan.governance`; None where no agent of it asks. The topics exist when it is turned."""
    asking = {*(view.govern_agent for view in plan.views), *(door.agent for door in plan.doors)}
    asking |= {outside.agent for outside in plan.outsides}
    if plan.erases:
        asking = {agent.name for agent in plan.agents}
    if not plan.governance or (only and asking.isdisjoint(only)):
        return None
    table = GlobalTable("governance", plan.governance, cluster, stores, clock, monotonic, look_s)
    # Decisions are deleted for those only who are erased, and doors are told so by the suppression.
    table.silent, table.traceless = (plan.keys,), (plan.consent,)
    table.lasting = {plan.keys: keys.KEYS_LOST}
    return table


def agents_of(plan: Plan, admin: Admin, only: Sequence[str] = (), *, shared: Shared | None = None) -> list[Agent]:
    """The agents of a plan, or those named. `shared`: None for a caller that runs none of them."""
    chosen: list[Agent] = []
    common = shared or Shared()
    known = suppression_of(plan, common)
    for view in (v for v in plan.views if plan.sources and (not only or v.govern_agent in only)):
        chosen.append(
            Govern(
                view,
                admin.topics,
                common.vault,
                common.governance,
                known,
                common.registry,
                common.paused,
                common.monotonic,
            )
        )
    chosen += [IdentityAgent(plan.at(i.govern), i, known) for i in plan.identities if not only or i.agent in only]
    chosen += [ProjectionAgent(plan, p, known) for p in plan.projections if not only or p.agent in only]
    asking = [outside for outside in plan.outsides if not only or outside.agent in only]
    chosen += [AskingAgent(plan, outside, known, common.vault, common.governance) for outside in asking]
    if plan.asks and (not only or "consent" in only):
        chosen.append(ConsentAgent(plan, admin.topics, admin.topic_ids, common.vault, known))
    if known is not None and common.vault is not None and (not only or "erasure" in only):
        chosen.append(ErasureAgent(plan, admin, known, common.vault.names, common.idle))
    chosen += [
        DoorAgent(
            plan,
            door,
            common.governance,
            common.vault,
            clock=common.clock,
            partitions=admin.topics,
            folded_by=partial(_folded_by, common.cluster),
            ends=None if common.cluster is None else partial(_ends_of_records, common.cluster),
            live=common.live,
            retired=common.retired,
            reset=common.reset,
            fence_max_age_ms=common.fence_max_age_ms,
            inputs_s=common.inputs_s,
            wire=common.wires.get(door.agent),
            cloudevents=common.cloudevents,
        )
        for door in plan.doors
        if not only or door.agent in only
    ]
    return chosen


def suppression_of(plan: Plan, shared: Shared) -> Suppression | None:
    """Who is suppressed, as this process knows it; None of an app that erases nobody, or for a caller that runs nothing."""
    table, vault = shared.governance, shared.vault
    if not plan.erases or table is None or vault is None:
        return None
    return Suppression(plan, table, vault.names, partial(_ends, table.cluster))


def _asked(cluster: Cluster, question: Callable[[Reader], T]) -> T:
    reader = cluster.reader()
    try:
        return question(reader)
    finally:
        reader.close()


def _ends(cluster: Cluster, partitions: Sequence[TP]) -> dict[TP, int]:
    return _asked(cluster, lambda reader: reader.ends(partitions))


def _ends_of_records(cluster: Cluster, starts: Mapping[TP, int]) -> Mapping[TP, int]:
    return _asked(cluster, lambda reader: ends_of_records(reader, starts))


def _folded_by(cluster: Cluster | None, changelog: TP) -> str | None:
    assert cluster is not None, "only agents that run ask"
    said = _asked(cluster, lambda reader: last_positions(reader, changelog))
    return None if said is None else said.fingerprint


def tellers_of(
    loops: Iterable[Loop],
    cluster: Cluster,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    every_s: float = EVERY_S,
    pass_s: float = PASS_S,
) -> list[Teller]:
    """Of those loops whose agents are told of."""
    return [
        Teller(
            agent.telling(),
            agent.group,
            loop.transactional_id,
            cluster,
            loop.standing,
            monotonic,
            every_s,
            pass_s,
            loop.noted,
        )
        for loop in loops
        if isinstance(agent := loop.agent, Told)
    ]


class Beside(Protocol):
    """What lives beside the loops: the web and what it hosts."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Worker:
    """Loops of one process. `run` blocks; `stop` may be called from a signal handler or another thread."""

    plan: Plan
    cluster: Cluster
    stores: Stores
    slot: str
    clock: Clock = system
    settings: LoopSettings = field(default_factory=LoopSettings)
    only: Sequence[str] = ()
    master: MasterKeys | None = None  # of an app that needs keys
    open_master: Callable[[], MasterKeys] | None = None  # where there is none yet; may find its service away
    fence_max_age_ms: int = 1000
    accept_drift: bool = False
    registry: Registry | None = None  # of the schemas that raw values name
    subjects: Subjects | None = None  # the same for what leaves; None: that is JSON
    cloudevents: bool = False  # whether what leaves has these attributes in its headers
    loops: list[Loop] = field(default_factory=list)
    tables: list[GlobalTable] = field(default_factory=list)
    tellers: list[Teller] = field(default_factory=list)
    error: BaseException | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    # What serves the loops outlives them: their last commits ask it.
    serving: list[threading.Thread] = field(default_factory=list)
    served: threading.Event = field(default_factory=threading.Event)
    ended: set[Loop] = field(default_factory=set)  # those that are to run no longer
    seen_reset: set[str] = field(default_factory=set)  # agents, since it has begun
    known: tuple[GlobalTable | None, Vault | None] | None = (
        None  # what people decided, and keys; None: it is getting ready
    )

    def __post_init__(self) -> None:
        """Raises UsageError for a name in `only` that does not exist, before anything is created."""
        self.only = tuple(self.plan.agent(name).name for name in self.only)
        self.turnstile = Turnstile()
        self.watch = control.Watch(self.plan, self.cluster)

    def prepare(self) -> None:
        """Wait for the broker, create our topics, make the loops. Returns early when told to stop."""
        said = False
        while not self.stopping.is_set():
            try:
                self.admin = self.cluster.admin()
                self.watch.turn()
                self._make_topics()
                vault = self._vault()
                self.watch.turn()
                self._begin(())  # where nobody has said which versions are live, it is said here
                self.watch.turn()
                names = self._chosen()
                wires = contracts.wires(self.plan, self.subjects, names)
                self._begin(names)
                break
            except BrokerAway as error:  # also a key service that is
                if not said:
                    log.warning("%s; waiting for it", error)
                    said = True
                self.stopping.wait(AWAY_S)
        else:
            return
        if not names:
            raise NeedsOperator(
                f"nothing is to run here: {', '.join(self.only) or self.plan.app} is retired, or not built (c360 versions)"
            )
        self._forget_retired()
        governance = governance_of(self.plan, self.cluster, self.stores, self.clock, names)
        if governance is not None:
            self.tables.append(governance)
        self.shared = Shared(
            self.cluster,
            governance,
            vault,
            self.clock,
            self._live,
            self.registry,
            self.fence_max_age_ms,
            retired=partial(control.is_retired, self.plan, self.watch),
            idle=partial(control.is_idle, self.plan, self.watch),
            reset=partial(control.is_reset, self.watch),
            wires=wires,
            cloudevents=self.cloudevents,
            paused=partial(control.is_paused, self.watch),
            monotonic=time.monotonic,
        )
        self.known = governance, vault
        self.loops += self._loops(names)
        self.tellers += tellers_of(self.loops, self.cluster)

    def _chosen(self) -> list[str]:
        """The agents that run here as it was decided last."""
        controls = self.watch.controls
        return [agent.name for agent in self.plan.agents if controls.runs(self.plan, agent.name, self.only)]

    def _make_topics(self) -> list[str]:
        """Those of ours that are missing; their names.

        Topics of a version are deleted after it was said that it is retired: so that is asked after it was seen what lacks.
        """
        specs = topics.missing(self.plan, self.admin, gone=self.watch.controls.gone(self.plan))
        if specs:
            gone = control.read(self.plan, self.cluster).gone(self.plan)
            specs = [spec for spec in specs if spec.name not in gone]
        self.admin.create(specs)
        return [spec.name for spec in specs]

    def _live(self, projection: str) -> int:
        return self.watch.controls.live(self.plan, projection)

    def _begin(self, names: Sequence[str]) -> None:
        """Begin those anew that were reset, and compare the others with what they were. Raises NeedsOperator where something
        is half reset, or has drifted."""
        controls, stopped = self.watch.controls, self.stopping.is_set
        if begin_lives(self.plan, self.cluster, controls, names, stopped, patience_s=RESET_S):
            self.watch.turn()
        beside.begin(self.plan, self.cluster, names)
        agents = [agent for agent in self.plan.agents if agent.name in names]
        for line in control.begin(self.plan, self.cluster, self.watch.controls, agents, accept_drift=self.accept_drift):
            log.warning("accepted: %s", line)

    def _loops(self, names: Sequence[str]) -> list[Loop]:
        settings = self.settings
        if self.plan.identities and settings.commit_share:
            settings = replace(settings, commit_share=MANY_HOPS_SHARE)
        return [
            Loop(
                agent,
                self.cluster,
                self.stores,
                slot=self.slot,
                clock=self.clock,
                settings=settings,
                turnstile=self.turnstile,
            )
            for agent in agents_of(self.plan, self.admin, names, shared=self.shared)
        ]

    def _vault(self) -> Vault | None:
        """The keys of the app, before anything is written. Raises UsageError, NeedsOperator where they are not here."""
        if not self.plan.needs_keys:
            return None
        if self.master is None and self.open_master is not None:
            self.master = self.open_master()
        if self.master is None:
            raise UsageError(keys.NO_KEYS)
        return keys.open_vault(self.plan, self.cluster, self.master, os.urandom)

    def start(self) -> None:
        """Start a thread per table, teller and loop, and one that creates what belongs to raw topics that appear later."""
        for table in self.tables:
            self._start_serving(table.name, table.run)
        for teller in self.tellers:
            self._start_serving(f"told-{teller.group}", teller.run)
        for loop in self.loops:
            self._start(loop)
        for name, looks in (("topics", self._watch_topics), ("control", self._watch_control)):
            watcher = threading.Thread(target=looks, name=name)
            watcher.start()
            self.threads.append(watcher)

    def _start_serving(self, name: str, run: Callable[[threading.Event], None]) -> None:
        thread = threading.Thread(target=self._serve, args=(name, run), name=name)
        thread.start()
        self.serving.append(thread)

    def _start(self, loop: Loop) -> None:
        thread = threading.Thread(target=self._drive, args=(loop,), name=loop.agent.name)
        thread.start()
        self.threads.append(thread)

    def run(self, beside: Beside | None = None) -> None:
        """Prepare, start, wait for `stop` or a failure; `beside` lives as long. Raises what ended a loop."""
        if beside is not None:
            beside.start()
        try:
            self.prepare()
            self.start()
            while not self.stopping.wait(0.2):
                pass
            self.join()
        finally:
            self.stopping.set()
            self.served.set()
            if beside is not None:
                beside.stop()

    def fail(self, error: BaseException) -> None:
        """Something hosted beside the loops cannot go on: stop everything, and raise it from `run`."""
        self.error = self.error or error
        self.stopping.set()

    def stop(self) -> None:
        self.stopping.set()

    def join(self) -> None:
        """After `stop`: wait until all loops have committed and left. Raises what ended one of them."""
        while self.threads:
            self.threads.pop().join()
        self.served.set()
        for thread in self.serving:
            thread.join()
        if self.error is not None:
            raise self.error

    def _drive(self, loop: Loop) -> None:
        try:
            loop.run(lambda: self.stopping.is_set() or loop in self.ended)
            if loop in self.ended:
                self._forget(loop.agent)
                self.loops.remove(loop)
        except NeedsOperator as error:
            if not self._was_reset(loop.agent.name):
                self._drive_no_more(loop, error)
                return
            log.info("%s is reset, by a command that has not seen this worker: it begins anew", loop.agent.name)
            self.loops.remove(loop)
        except BaseException as error:
            self._drive_no_more(loop, error)

    def _drive_no_more(self, loop: Loop, error: BaseException) -> None:
        """One agent that cannot go on ends the worker, with its error."""
        log.error("%s stopped: %s", loop.agent.name, error)
        self.fail(error)

    def _was_reset(self, agent: str) -> bool:
        """Whether that was asked for since this worker has begun; once for each time."""
        with suppress(BrokerAway):
            self.seen_reset |= control.read(self.plan, self.cluster).resets.keys()
        known = agent in self.seen_reset
        self.seen_reset.discard(agent)
        return known

    def _forget(self, agent: Agent) -> None:
        """What a retired agent has on this disk. Its changelog goes, so nobody will read it."""
        for lead in (TP(topic, p) for topic in agent.lead_topics() for p in range(self.plan.partitions)):
            self.stores.forget(agent.store_name(lead))

    def _forget_retired(self) -> None:
        """The same of agents that were retired while no worker ran on this disk."""
        for agent in (a for p in self.watch.controls.retired(self.plan) for a in self.plan.agents_of(p)):
            for partition in range(self.plan.partitions):
                self.stores.forget(f"{agent.group}/{partition}")

    def _serve(self, name: str, run: Callable[[threading.Event], None]) -> None:
        try:
            run(self.served)
        except BaseException as error:
            log.error("%s stopped: %s", name, error)
            self.fail(error)

    def _watch_topics(self) -> None:
        looks, said = 0, ""
        trimmed: dict[TP, int] = {}
        while not self.stopping.wait(LOOK_S):
            looks += 1
            try:
                created = self._make_topics()
                if looks % TRIM_LOOKS == 0:
                    self._trim(trimmed)
            except BrokerAway:
                continue
            except C360Error as error:  # agents go on with the topics that there are
                if said != (said := str(error)):
                    log.error("topics cannot be made, or loops not be trimmed: %s; trying again", said)
                continue
            if created:
                log.info("created %s", ", ".join(created))

    def _watch_control(self) -> None:
        """Start and stop agents as it is decided, while the worker runs."""
        while not self.stopping.wait(CONTROL_S):
            try:
                self.watch.turn()
                self._follow_control()
                quarantine(self.plan, self.cluster, self.loops, self.clock)
            except BrokerAway:
                continue
            except Exception as error:  # whatever was decided cannot be done: no agent is to go on as if it were not
                log.error("versions cannot be followed: %s", error)
                self.fail(error)
        self.watch.close()

    def _follow_control(self) -> None:
        """Start and stop agents as it is decided, while the worker runs; and begin those anew that were reset meanwhile."""
        self.seen_reset |= self.watch.controls.resets.keys()
        chosen = self._chosen()
        running = {loop.agent.name: loop for loop in list(self.loops)}  # a loop that has ended takes itself out
        for name, loop in running.items():
            if name not in chosen and loop not in self.ended:
                log.info("%s is retired: it commits and stops", name)
                self.ended.add(loop)
        if new := [name for name in chosen if name not in running]:
            wires = contracts.wires(self.plan, self.subjects, new)
            self.shared = replace(self.shared, wires={**self.shared.wires, **wires})
            self._make_topics()
            self._begin(new)
            for loop in self._loops(new):
                log.info("%s runs from now on", loop.agent.name)
                self.loops.append(loop)
                self._start(loop)
                for teller in tellers_of([loop], self.cluster):  # that of a loop before has nothing to tell any more
                    self.tellers = [known for known in self.tellers if known.group != teller.group] + [teller]
                    self._start_serving(f"told-{teller.group}", teller.run)

    def _trim(self, done: dict[TP, int]) -> None:
        try:
            trim(self.plan, self.admin, done)
        except NeedsOperator as error:  # it may not: then they stay, and nothing else is wrong
            log.warning("what loops have read is kept: %s", error)


def quarantine(plan: Plan, cluster: Cluster, loops: Sequence[Loop], clock: Clock) -> bool:
    """Pause sources of which more than they allow does not fit, as an operator would. Whether there was one.

    It is tried again where it cannot be told: what does not fit goes to the dead letters, and all else goes on.
    """
    found = False
    for govern in [loop.agent for loop in list(loops) if isinstance(loop.agent, Govern)]:
        for source, share in govern.shares.items():
            if share.failing is None:
                continue
            why = f"quarantine: {share.failing:.0%} of the last {SHARE_OF:,} records do not fit"
            try:
                with Run(plan, cluster, who="c360 worker", reason=why, random=os.urandom, clock=clock) as run:
                    sources.pause(plan, cluster, source, why, now_ms=clock(), run=run)
            except C360Error as error:
                log.error("%s cannot be paused: %s", source, error)
                continue
            log.error("%s is paused: %s (c360 dlq list; c360 source resume %s --execute)", source, why, source)
            share.failing, found = None, True
    return found


def tune_process() -> None:
    """Fit Python and the C library to a process that is a worker. To be called before it has threads.

    It makes nearly no garbage in cycles, and looking for it means walking over all decoded state: 10 % of its time
    (docs/decisions/0007). And glibc gives up to eight times as many threads as there are cores a heap of their own, whose
    free memory the others do not get: 90 of 450 MB in the benchmark.
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


@dataclass(frozen=True)
class Stepping:
    """A process for a caller that turns it itself, in one thread: tests."""

    loops: Sequence[Loop]
    tables: Sequence[GlobalTable]
    tellers: Sequence[Teller] = ()
    watch: control.Watch | None = None  # of what was decided of versions; all that are declared run, whatever it says
    quarantine: Callable[[Sequence[Loop]], bool] = lambda loops: False  # pauses sources; whether it has

    def ask(self) -> None:
        """Have it told how far everything is, with all that was sent before now."""
        for teller in self.tellers:
            teller.ask()

    def turn(self) -> bool:
        """One round of everything. Whether something has moved, or is under way."""
        before = self._said()
        decided = self.watch is not None and self.watch.turn()
        for table in self.tables:
            table.turn()
        done = [loop.turn(0.0) for loop in self.loops]
        for teller in self.tellers:
            teller.turn()
        decided = self.quarantine(self.loops) or decided
        moved = before != self._said() or any(table.age() > 0 for table in self.tables)
        return moved or decided or any(done) or any(map(_at_work, self.loops))

    def _said(self) -> list[int]:
        commits = sum(loop.metrics.commits for loop in self.loops)
        tables = (table.version for table in self.tables)
        return [commits, *tables, *(teller.said.statements for teller in self.tellers)]

    def leave(self) -> None:
        """Commit what is done, and go."""
        for loop in self.loops:
            loop.commit_or_abort()
            loop.close()
        for table in self.tables:
            table.close()
        for teller in self.tellers:
            teller.close()
        if self.watch is not None:
            self.watch.close()


def _at_work(loop: Loop) -> bool:
    """Whether it has more to do by itself; also while it looks for a record that fails."""
    return bool(loop.in_transaction or loop.uncommitted or any(t.careful for t in loop.tasks.values()))


def stepping(
    plan: Plan,
    cluster: Cluster,
    stores: Stores,
    *,
    slot: str,
    clock: Clock,
    settings: LoopSettings,
    vault: Vault | None = None,
    registry: Registry | None = None,
    wires: Mapping[str, Wire] | None = None,
    cloudevents: bool = False,
    fence_max_age_ms: int = 1000,
) -> Stepping:
    """`clock` is also that of the broker and of ages."""
    admin = cluster.admin()
    topics.apply(plan, admin)
    beside.begin(plan, cluster, [agent.name for agent in plan.agents])

    def seconds() -> float:
        return clock() / 1000

    watch = control.Watch(plan, cluster)
    watch.turn()
    begin_lives(plan, cluster, watch.controls, [agent.name for agent in plan.agents])
    table = governance_of(plan, cluster, stores, clock, monotonic=seconds, look_s=0.0)
    shared = Shared(
        cluster,
        table,
        vault,
        clock,
        lambda projection: watch.controls.live(plan, projection),
        registry,
        fence_max_age_ms,
        inputs_s=0.0,
        retired=partial(control.is_retired, plan, watch),
        idle=partial(control.is_idle, plan, watch),
        reset=partial(control.is_reset, watch),
        wires=wires or {},
        cloudevents=cloudevents,
        paused=partial(control.is_paused, watch),
    )
    loops = [
        Loop(a, cluster, stores, slot=slot, clock=clock, settings=settings, executor=InlineExecutor())
        for a in agents_of(plan, admin, shared=shared)
    ]
    tellers = tellers_of(loops, cluster, monotonic=seconds, pass_s=0.0)
    return Stepping(
        loops,
        [] if table is None else [table],
        tellers,
        watch,
        lambda loops: quarantine(plan, cluster, loops, clock),
    )


def drain(loops: Iterable[Loop], idle: Callable[[], bool], *, turns: int = 100_000) -> None:
    """Turn loops until `idle`. Raises AssertionError when that does not come."""
    for _ in range(turns):
        for loop in loops:
            loop.turn(0.0)
        if idle():
            return
    raise AssertionError("the loops did not come to rest")
