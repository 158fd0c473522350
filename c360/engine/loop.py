"""One agent on one consumer: poll, process, commit, at our own pace, exactly once.

    1 poll      records of owned partitions; rebalance callbacks run here and nowhere else
    2 filter    records of tasks that are not running, or below a task's next offset
    3 process   the agent's processor turns a batch into dirty table entries and output, and into mail for other tasks
    4 send      the first output begins a transaction; output is produced as it comes
    5 commit    mail until there is none → changelog records and positions of each task with news → offsets to the
                transaction → the agent's gate, if it has one → commit
    6 disk      one write per task: the same entries and positions; only after 5
    7 clean     dirty becomes clean; base positions are the next ones

A task's life:

    RESTORING ──restored──► RUNNING ──revoked, lost──► gone
        ▲                      │
        └──store failed, outcome unknown──┘

Errors are handled in one place, `_recover`, by their class (`c360.errors`).

A shut gate (`Shut`) undoes what was made and stops reading: membership is kept by polling for nothing, and the gate is
asked until it opens. So one that is shut for hours costs a question each `shut_s`, and no record is read twice for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

from c360.clock import Clock
from c360.engine.agent import Agent, Choosy, Gated, Processor, Task
from c360.engine.metrics import LoopMetrics
from c360.engine.owners import LastOwners
from c360.engine.pace import Pace
from c360.engine.post import Post
from c360.engine.restore import PATIENCE_S, Progress, restore
from c360.engine.standby import Standby
from c360.engine.state import TaskState, encode_positions, partitions_of
from c360.engine.transport import TP, Batch, Cluster, Consumer, Headers, Producer
from c360.engine.turnstile import Turn, Turnstile
from c360.errors import (
    BrokerAway,
    C360Error,
    EngineFatal,
    Evicted,
    Fenced,
    Misfit,
    NeedsOperator,
    OutcomeUnknown,
    OutOfLog,
    Replaced,
    Shut,
    TaskCorrupted,
    TaskMigrated,
    TransactionAborted,
)
from c360.tables.store import Entry, Stores

log = logging.getLogger("c360.engine")

SOON_S = 0.02  # between commits at least: each is work for the brokers
LULL_S = 0.002
RECOMMIT_S = 3600.0  # offsets of topics outside the subscription expire a week after their last commit
REPLACED_TIMES, REPLACED_S = 3, 60.0  # a broker that restarts has us replace ourselves once
CALM_S = 300.0  # a full disk takes some writes between the failures; only after this is a store well again
SAID_S = 60.0  # a reason for which a gate is shut is told again only after this


class Phase(Enum):
    RESTORING = "restoring"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True)
class LoopSettings:
    """How a loop paces itself."""

    batch_records: int = 1000
    commit_s: float = 0.1  # at the latest so long after the first uncommitted record
    # Sooner while commits take less than this part of the time; 0: never (docs/decisions/0011).
    commit_share: float = 0.5
    # Or so long when behind, the commit itself included: fewer commits write fewer profiles (docs/decisions/0007).
    behind_s: float = 6.0
    commit_records: int = 150_000  # or after so many records: bounds memory between commits
    abandoned_s: float = 6.5  # so long no live worker has a transaction open: longer than behind_s
    committed_timeout_s: float = 60.0
    # From task to task at a commit; what is more goes through the log, with 0 all of it (docs/decisions/0015).
    mail_records: int = 20_000
    mail_bytes: int = 64 << 20  # that may wait
    record_bytes: int = 16_000_000  # of a value that is written; our topics take 16 MiB
    static: bool = True  # be a static member of the group, named as the slot, where that can be (docs/decisions/0008)
    standby: bool = False  # keep copies of the tasks that others run
    standby_s: float = 1.0  # between two looks at what is new for them
    adopt: bool = False  # take the changelog's positions where the group's differ
    held_s: float = 0.5  # for which an input waits that has a record of which its processor cannot know what it is
    accept_drift: bool = False  # go on with state that other logic has made
    away_s: float = 1.0  # between two tries while the broker is away
    # Between two questions whether a shut gate is open: a statement of the fence comes each 0.25 s and holds for 1 s.
    shut_s: float = 0.05
    shut_most_s: float = 1.0  # between two tries to pass it, each of which makes and undoes something, at most
    pace: Pace | None = None  # of the process: what it reads at most
    store_tries: int = 3  # in a row that a task's store may fail before the worker gives up


@runtime_checkable
class Paced(Protocol):
    """An agent with a pace of its own."""

    def settings(self, given: LoopSettings) -> LoopSettings:
        """The settings of its loop, from those of the process. Asked again after each commit, and each that might not be."""
        ...


@runtime_checkable
class Rereads(Protocol):
    """An agent that may be given an input's records again."""

    def rereads(self, tp: TP) -> bool:
        """Whether it is to read an input from the start that its state has no position in, though the group has one."""
        ...


@dataclass(eq=False)
class RunningTask:
    """A task and where it stands. `base` is committed, `next` is processed."""

    task: Task
    phase: Phase = Phase.RESTORING
    state: TaskState | None = None
    processor: Processor | None = None
    takes: Callable[[Batch], int] | None = None  # of a processor that may have to wait with a record
    base: dict[TP, int] = field(default_factory=dict)
    next: dict[TP, int] = field(default_factory=dict)
    committed: set[TP] = field(default_factory=set)  # inputs the group has an offset for
    claimed: bool = True  # its changelog says that it is ours
    notes: dict[str, Any] = field(default_factory=dict)  # of the last commit
    heard: bool = False  # mail since then: what it answered belongs to it, even where it changed nothing
    store_failures: int = 0
    store_failed: float = 0.0  # when, last
    # By input. Being bisected: (batch size, up to offset); to be put aside: (offset, why).
    limit: dict[TP, tuple[int, int]] = field(default_factory=dict)
    condemned: dict[TP, tuple[int, BaseException]] = field(default_factory=dict)

    def moved(self) -> dict[TP, int]:
        return {tp: n for tp, n in self.next.items() if n != self.base[tp]}

    @property
    def careful(self) -> bool:
        """Whether it is looking for a record that fails."""
        return bool(self.limit or self.condemned)

    def close(self) -> None:
        """Let go of the store; what is on disk stays."""
        if self.state is not None:
            self.state.store.close()
            self.state = None


class _Made(NamedTuple):
    """What a commit holds of one task."""

    task: RunningTask
    moving: dict[TP, int]
    changes: list[tuple[Any, list[Entry]]]
    positions: bytes
    notes: dict[str, Any]
    known: set[TP]  # inputs the group has an offset for from now on
    logged: list[int]  # of its positions in the changelog, once acknowledged


@dataclass
class _ShutOut:
    """While the gate is shut. Times are `time.monotonic`."""

    since: float
    ask: float  # when to ask again
    again: float  # when tasks that want to say something may try


class _BatchFailed(Exception):
    """A processor raised something that is no remedy: the user's code or ours. Bisect."""

    def __init__(self, task: RunningTask, batch: Batch, error: Exception) -> None:
        super().__init__(str(error))
        self.task, self.batch, self.error = task, batch, error


class _TooLarge(Exception):
    """A value that no topic takes."""


class _CommitFailed(Exception):
    """What a task has folded since its last commit cannot be finished or written. Look closer."""

    def __init__(self, task: RunningTask, error: Exception) -> None:
        super().__init__(str(error))
        self.task, self.error = task, error


class InlineExecutor(Executor):
    """Runs what is submitted at once: the test driver's way to restore, step by step."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # Executor's own signature
        future: Future[object] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # handed to whoever asks for the result
            future.set_exception(error)
        return future


class Loop:
    """Drives one agent. `turn` is one round of the loop; `run` turns until told to stop."""

    def __init__(
        self,
        agent: Agent,
        cluster: Cluster,
        stores: Stores,
        *,
        slot: str,
        clock: Clock,
        settings: LoopSettings | None = None,
        executor: Executor | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        """`turnstile`: shared with the other loops of the process, where there are any."""
        self.agent = agent
        self.cluster = cluster
        self.stores = stores
        self.transactional_id = f"{agent.group}.{slot}"
        self.clock = clock
        self.settings = self.given = settings or LoopSettings()
        self._set_pace()
        self.gate = agent.gate if isinstance(agent, Gated) else None
        self.held: dict[TP, float] = {}  # inputs that wait, and until when; their other tasks go on
        self.shut: _ShutOut | None = None
        self.shut_in_a_row = 0  # that something was made and might not leave, with an open gate before
        self.shut_told: dict[str, float] = {}  # reasons, and when they were told last
        self.computing = Turn(turnstile or Turnstile())
        self.metrics = LoopMetrics(agent.name)
        self.tasks: dict[TP, RunningTask] = {}  # by lead partition
        self.unmade: list[TP] = []  # leads that were assigned, and have no task yet
        self.owners: dict[TP, RunningTask] = {}  # by input partition, running tasks only
        self.post = Post(agent.loops if self.settings.mail_records else ())
        self.without_mail_since: float | None = None
        self.in_transaction = False
        self.sent = 0  # records that processors have said, ever
        self.uncommitted = 0  # records processed since the last commit
        self.first_uncommitted = 0.0
        self.commit_took_s = 0.0  # the last ones
        self.committed_at = -math.inf
        self.recommitted = time.monotonic()
        self.trouble: C360Error | None = None  # met inside a callback, handled after the poll
        self.replaced: deque[float] = deque(maxlen=REPLACED_TIMES)  # when another member came with our static id
        self.restored: deque[tuple[list[RunningTask], Future[bool], Progress]] = deque()
        self.executor = executor or ThreadPoolExecutor(1, thread_name_prefix=f"restore-{agent.name}")
        self.standby: Standby | None = None
        self.copying: Future[None] | None = None  # a slice of it
        if self.settings.standby:
            self.standby = Standby(agent, cluster, stores, clock, every_s=self.settings.standby_s)
        self.last_owners = LastOwners(self._transaction_since, self._evict, clock, self.settings.abandoned_s)
        self.asking: Future[None] | None = None  # about them
        self.producer: Producer | None = None
        self.unsettled: list[RunningTask] = []  # to be restored by the next producer: a commit's outcome is unknown
        instance = slot if self.settings.static else None
        self.consumer: Consumer = cluster.consumer(agent.group, instance=instance)
        self.subscribed: tuple[str, ...] = ()
        self.closing = False
        self.waiting_for = ""

    # ================================================================================================== the loop
    def run(self, stopped: Callable[[], bool]) -> None:
        """Turn until `stopped`, then commit and leave. Raises what no retry in this process can mend."""
        try:
            while not stopped():
                self.turn(0.05)
            self.commit_or_abort()
        finally:
            self.close()

    def turn(self, timeout_s: float) -> int:
        """One round; returns how many records it processed. Waits at most `timeout_s` for records."""
        try:
            if self.producer is None:
                # It settles what the last one left open; only then do the changelogs have the answer.
                self.producer = self.cluster.producer(self.transactional_id)
                self.waiting_for = ""
                unsettled, self.unsettled = self.unsettled, []
                self._restore([t for t in unsettled if t.phase is not Phase.GONE])
            self._subscribe()
            self._make_tasks()
            self._adopt_restored()
            self._stand_by()
            self._ask_about_owners()
            self._raise_trouble()
            if self.shut is None and not all(task.claimed for task in self._running()):
                self.commit()  # before a transaction has anything of them that an heir would have to wait for
            if self.held and self.shut is None:
                self._give_again()
            # 1 poll: wait for more no longer than until what is uncommitted may be committed
            wait_s = min(timeout_s, self._commit_rest()) if self.uncommitted else timeout_s
            if self.shut is not None:
                wait_s = min(timeout_s, max(0.0, self.shut.ask - time.monotonic()))
            most, resting = self.settings.batch_records, False
            if self.settings.pace is not None:
                most, resting = self._keep_pace(self.settings.pace, wait_s)
            batches = [] if resting else self.consumer.poll(most, wait_s)
            self._raise_trouble()
            if self.shut is not None:
                self._try_gate(self.shut)
                return 0
            # 2 to 4
            if batches:
                self.computing.take()
            done = sum(self._process(batch) for batch in batches)
            if done:
                self.uncommitted += self._deliver(at_least=self.settings.batch_records)
                if self.settings.pace is not None:
                    self.settings.pace.spend(*_size(batches))
            behind = resting or done >= most
            # 5 to 7
            if self._commit_due(idle=not (done or resting), behind=behind):
                self.commit()
            self.computing.leave(unless_fresh=behind)
            return done
        except _BatchFailed as failed:
            self._bisect(failed)
        except _CommitFailed as failed:
            self._look_closer(failed)
            self._recover(TransactionAborted("a record cannot be written"))
        except C360Error as error:
            self._recover(error)
        return 0

    def close(self) -> None:
        """Leave the group and let go of everything. Uncommitted work is aborted, nothing is lost."""
        self.closing = True
        self.computing.leave()
        if not isinstance(self.trouble, OutcomeUnknown):  # that one's producer is not to be used again
            with suppress(Fenced):
                self._abort_quietly()
        self.consumer.close()
        if self.producer is not None:
            self.producer.close()
            self.producer = None
        for task in list(self.tasks.values()):
            self._drop(task)
        self.executor.shutdown(wait=True)  # a restore that is under way notices `closing`
        if self.standby is not None:
            self.standby.close()

    def _keep_pace(self, pace: Pace, wait_s: float) -> tuple[int, bool]:
        """How many records to read, and whether none yet: then it has waited, and is behind as before."""
        most, rest_s = pace.next(self.settings.batch_records)
        if rest_s > 0:
            time.sleep(min(rest_s, wait_s))
        return most, rest_s > 0

    def _set_pace(self) -> None:
        if isinstance(self.agent, Paced):
            self.settings = self.agent.settings(self.given)

    # ================================================================================================ 2 to 4: work
    def _process(self, batch: Batch) -> int:
        task = self.owners.get(batch.tp)
        if task is None or batch.tp in self.held:
            return 0
        expected = task.next[batch.tp]
        if batch.offsets[0] < expected:
            skip = sum(1 for o in batch.offsets if o < expected)
            batch = batch.slice(skip, len(batch))
            if not batch.offsets:
                return 0
        if task.takes is not None and (taken := task.takes(batch)) < len(batch):
            self.held[batch.tp] = time.monotonic() + self.settings.held_s
            self.consumer.unfetch([batch.tp])
            if not taken:
                return 0
            batch = batch.slice(0, taken)
        if batch.tp in task.limit or batch.tp in task.condemned:
            return self._process_carefully(task, batch)
        self._process_whole(task, batch)
        return len(batch)

    def _give_again(self) -> None:
        """Inputs that had to wait are read again from where they stand."""
        now = time.monotonic()
        for tp in [tp for tp, again in self.held.items() if again <= now]:
            del self.held[tp]
            if (task := self.owners.get(tp)) is not None and task.phase is Phase.RUNNING:
                self.consumer.fetch({tp: task.next[tp]})

    def _process_whole(self, task: RunningTask, batch: Batch) -> None:
        assert task.processor is not None
        if not self.uncommitted:
            self.first_uncommitted = time.monotonic()
        begun = time.thread_time()
        try:
            task.processor.process(batch, self)
        except C360Error:
            raise
        except Exception as error:
            raise _BatchFailed(task, batch, error) from error
        task.next[batch.tp] = batch.offsets[-1] + 1
        self.post.read(batch.tp, task.next[batch.tp])
        self.uncommitted += len(batch)
        self.metrics.processed(len(batch), time.thread_time() - begun)

    def _deliver(self, at_least: int = 1) -> int:
        """Mail of those tasks that have so much; how many messages."""
        delivered = 0
        for batch in self.post.take(at_least) if self.post.mail else ():
            task = self.owners[batch.tp]
            assert task.processor is not None
            task.heard = True
            try:
                task.processor.process(batch, self)
            except C360Error:
                raise
            except Exception as error:
                self._without_mail(f"a message raised {type(error).__name__}")
                raise TransactionAborted("mail between tasks failed") from error
            delivered += len(batch)
        self.metrics.mail += delivered
        return delivered

    def _without_mail(self, why: str) -> None:
        """Through the log each message has an offset, so that the one that fails can be found and put aside."""
        log.warning("%s: %s; for a while its tasks tell each other all through the log", self.agent.name, why)
        self.post, self.without_mail_since = Post(()), time.monotonic()

    def _again_with_mail(self) -> None:
        """After a commit, when what failed is over."""
        since = self.without_mail_since
        if since is not None and time.monotonic() - since > CALM_S and not any(t.careful for t in self.tasks.values()):
            self.post, self.without_mail_since = Post(self.agent.loops), None
            self.post.close(self.owners)

    def _process_carefully(self, task: RunningTask, batch: Batch) -> int:
        """After a failure: small pieces with a commit after each, and the one record that fails alone put aside."""
        assert task.processor is not None
        done = 0
        while done < len(batch):
            rest = batch.slice(done, len(batch))
            size, until = task.limit.get(batch.tp, (len(rest), -1))
            offset, error = task.condemned.get(batch.tp, (-1, None))
            if rest.offsets[0] > offset >= 0:
                del task.condemned[batch.tp]  # it has left the log by itself
            if rest.offsets[0] == offset and error is not None:
                piece = rest.slice(0, 1)
                task.processor.divert(piece, error, self)
                task.next[batch.tp] = offset + 1
                self.post.read(batch.tp, offset + 1)
                self.uncommitted += 1
                del task.condemned[batch.tp]
            else:
                piece = rest.slice(0, size)
                if offset in piece.offsets:
                    piece = piece.slice(0, piece.offsets.index(offset))
                self._process_whole(task, piece)
            self.commit()
            done += len(piece)
            if piece.offsets[-1] >= until:
                task.limit.pop(batch.tp, None)
            if task.phase is not Phase.RUNNING:
                break  # the commit is in the log, but not on the disk: it is being restored
        return done

    def _bisect(self, failed: _BatchFailed) -> None:
        task, batch = failed.task, failed.batch
        if len(batch) == 1:
            log.warning("%s: record %s/%d@%d raised %s; it is put aside", self.agent.name, *batch.tp, batch.offsets[0],
                        type(failed.error).__name__)  # fmt: skip
            task.condemned[batch.tp] = (batch.offsets[0], failed.error)
        else:
            task.limit[batch.tp] = (max(1, len(batch) // 2), batch.offsets[-1])
        self._recover(TransactionAborted("a batch failed"))

    def _look_closer(self, failed: _CommitFailed) -> None:
        """As `_bisect`, for what only shows when it is to be finished or written, such as a state that has grown too large."""
        task, error = failed.task, failed.error
        if self.post.topics:
            self._without_mail(f"a commit failed ({type(error).__name__})")
            return
        moved = task.moved()
        if not moved:
            raise EngineFatal(f"{self.agent.name}: what is to be committed fails, of no input: {error}") from error
        for tp, position in moved.items():
            size, until = task.limit.get(tp, (min(position - task.base[tp], self.settings.batch_records), -1))
            if len(moved) == size == 1:
                log.warning("%s: with record %s/%d@%d a commit fails (%s); it is put aside",
                            self.agent.name, *tp, position - 1, type(error).__name__)  # fmt: skip
                task.condemned[tp] = (position - 1, error)
            task.limit[tp] = (max(1, size // 2), max(until, position - 1))

    def _too_large(self) -> Misfit:
        most = self.settings.record_bytes
        return Misfit(
            "too-large", f"{self.agent.name}: with this record it would have to write one of over {most} bytes"
        )

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """4: output of a processor, in the transaction of its input."""
        if value is not None and len(value) > self.settings.record_bytes:
            raise _TooLarge
        if not self.in_transaction:
            self._begin()
        self.sent += 1
        assert self.producer is not None
        if topic in self.post.topics and partition is not None:
            self.post.send(TP(topic, partition), (key, value, headers), self.producer)
        else:
            self.producer.produce(topic, key, value, partition, headers)

    def _begin(self) -> None:
        assert self.producer is not None
        self.producer.begin()
        self.in_transaction = True

    # ============================================================================================== 5 to 7: commit
    def _commit_due(self, *, idle: bool, behind: bool) -> bool:
        if self.uncommitted:
            return (
                (idle and self._commit_rest() <= LULL_S)
                or self.uncommitted >= self.settings.commit_records
                or self.post.bytes > self.settings.mail_bytes
                or any(t.state.outgrown() for t in self._running() if t.state is not None)
                or time.monotonic() - self.first_uncommitted >= self._commit_interval(behind=behind)
            )
        if time.monotonic() - self.recommitted > RECOMMIT_S:
            return True
        return self._wanted()

    def _wanted(self) -> bool:
        now = self.clock()
        return any(t.processor.wants(now) for t in self._running() if t.processor is not None)

    def _commit_interval(self, *, behind: bool) -> float:
        """Seconds from the first uncommitted record to the next commit, by how long the last ones took."""
        settings, took_s = self.settings, self.commit_took_s
        if behind:
            return max(settings.commit_s, settings.behind_s - took_s)
        if not settings.commit_share:
            return settings.commit_s
        return min(settings.commit_s, max(SOON_S, took_s / settings.commit_share - took_s))

    def _commit_rest(self) -> float:
        """Seconds that are left of the interval since the last commit; then, as soon as nothing more comes, is the next.

        At least LULL_S: as long as nothing must come before it is said that nothing comes.
        """
        if not self.settings.commit_share:
            return LULL_S
        return max(LULL_S, self.committed_at + self._commit_interval(behind=False) - time.monotonic())

    def commit(self) -> None:
        """Everything processed so far becomes durable at once: state, output and positions, or nothing of it."""
        begun = time.monotonic()
        everything = begun - self.recommitted > RECOMMIT_S
        self.computing.take()
        changed = self._finish(everything)
        self.computing.leave()  # the others, while the broker decides
        if not changed:
            assert not self.in_transaction, "what was said belongs to no position"
            return
        producer = self.producer
        assert producer is not None
        # 5b positions, fenced by the group's generation as it is now
        offsets: dict[TP, int] = {}
        for made in changed:
            offsets |= made.moving
        producer.send_offsets(offsets, self.consumer.group())
        # 5c as late as can be: may it leave
        if self.gate is not None:
            self.gate()
        # 5d one decision for all of it
        producer.commit()
        self.in_transaction = False
        # 6, 7
        self.computing.take()
        for made in changed:
            self._write(made, begun)
        if everything:
            self.recommitted = begun
        took_s = time.monotonic() - begun
        self.committed_at = begun + took_s
        # A slow one is remembered for a while
        self.commit_took_s = max(took_s, 0.8 * self.commit_took_s + 0.2 * took_s)
        self.metrics.committed(self.uncommitted, took_s)
        self.shut_in_a_row = 0
        self.uncommitted = 0
        self._set_pace()
        self._again_with_mail()

    def _finish(self, everything: bool) -> list[_Made]:
        """5a: the last output, and the changelog of each task that has something to say."""
        changed = []
        now = self.clock()
        self._settle_all()
        for task in self._running():
            state, processor = task.state, task.processor
            assert state is not None
            assert processor is not None
            moved = task.moved()
            if not (moved or everything or processor.wants(now) or self.in_transaction or not task.claimed):
                continue
            before = self.sent
            try:
                processor.finish(task.next, now, self)
            except _TooLarge:
                raise _CommitFailed(task, self._too_large()) from None
            changes = state.changes()
            notes = processor.notes()
            news = (
                moved
                or task.heard
                or everything
                or self.sent > before
                or notes != task.notes
                or any(entries for _, entries in changes)
            )
            if not news and task.claimed:
                continue
            # The positions of each task that has said something, be they the old ones: a zombie is refused by them, and by them
            # an heir finds that what was said is not decided on yet.
            moving = moved if moved and not everything else task.next
            if not news:
                moving = {tp: task.next[tp] for tp in task.committed}
            # What changed, and the positions it belongs to, last
            known = task.committed | moving.keys()
            positions = encode_positions(
                {tp: n for tp, n in task.next.items() if tp in known},
                self.agent.fingerprint,
                notes,
                self.transactional_id,
            )
            logged = self._log(task, changes, positions)
            changed.append(_Made(task, moving, changes, positions, notes, known, logged))
        if changed:
            assert self.producer is not None
            self.post.spill(self.producer)  # what was said in `finish`
        return changed

    def _settle_all(self) -> None:
        """Until no task has mail: all of what they tell each other is in this transaction, up to what one should hold."""
        left = self.settings.mail_records
        while True:
            for task in self._running():
                assert task.processor is not None
                before = self.sent
                try:
                    task.processor.settle(self)
                except _TooLarge:
                    raise _CommitFailed(task, self._too_large()) from None
                except C360Error:
                    raise
                except Exception as error:  # what follows from a message is the message's
                    raise _CommitFailed(task, error) from error
                task.heard = task.heard or self.sent > before
            if self.post.waiting() > left or self.post.bytes > self.settings.mail_bytes:
                break
            if not (delivered := self._deliver()):
                break
            left -= delivered
        assert self.producer is not None
        self.post.spill(self.producer)

    def _write(self, made: _Made, now: float) -> None:
        """6 and 7 of a task, after the commit."""
        task = made.task
        assert task.state is not None
        task.base, task.notes, task.committed, task.claimed = dict(task.next), made.notes, made.known, True
        task.heard = False
        try:
            task.state.written(made.changes, made.positions, made.logged[-1] + 1)
            if task.store_failures and now - task.store_failed > CALM_S:
                task.store_failures = 0
        except TaskCorrupted as error:
            self._corrupted(task, error)

    def _log(self, task: RunningTask, changes: Sequence[tuple[object, list[Entry]]], positions: bytes) -> list[int]:
        """Produce the changelog records of a task; the returned list gets the offset of the last one, once known."""
        if not self.in_transaction:
            self._begin()
        assert self.producer is not None
        topic, partition = self.agent.changelog(task.task.lead)
        produce, most = self.producer.produce, self.settings.record_bytes
        for _, entries in changes:
            for key, value in entries:
                if value is not None and len(value) > most:
                    raise _CommitFailed(task, self._too_large())
                produce(topic, key, value, partition)
        at: list[int] = []
        produce(topic, b"\x00positions", positions, partition, None, lambda offset, _: at.append(offset))
        return at

    # ================================================================================================= a shut gate
    def _try_gate(self, shut: _ShutOut) -> None:
        """Inputs rest. When it is time: let tasks try that have something to say by themselves, and ask the gate."""
        now = time.monotonic()
        if now < shut.ask:
            return
        shut.ask = now + self.settings.shut_s
        if now >= shut.again and self._wanted():
            shut.again = now + self.settings.shut_most_s
            self.commit()
        if self.gate is not None:
            try:
                self.gate()
            except Shut as error:
                self._tell_shut(error)
                self.shut_in_a_row = 0  # it is shut for all, and what was tried is not to blame
                return
        self.shut = None
        for task in self._running():
            self.consumer.fetch(task.base)

    def _shut_out(self, error: Shut) -> None:
        """What was made is undone. Where the gate opens when asked and shuts on what is made, the pauses become longer."""
        self._tell_shut(error)
        now, settings = time.monotonic(), self.settings
        pause_s = min(settings.shut_s * 2.0 ** min(self.shut_in_a_row, 10), settings.shut_most_s)
        since = now if self.shut is None else self.shut.since
        self.shut = _ShutOut(since, now + pause_s, now + settings.shut_most_s)
        self.shut_in_a_row += 1
        self._set_pace()
        self._abort_and_rewind()

    def _tell_shut(self, error: Shut) -> None:
        now = time.monotonic()
        if now - self.shut_told.get(error.reason, -math.inf) >= SAID_S:
            self.shut_told[error.reason] = now
            log.info("%s: nothing leaves (%s): %s; waiting", self.agent.name, error.reason, error)

    def standing(self) -> dict[TP, int]:
        """Committed positions of running tasks, by input; 0 or more where nothing is committed yet. For other threads."""
        found: dict[TP, int] = {}
        for task in list(self.tasks.values()):
            if task.phase is Phase.RUNNING:
                found |= task.base  # each commit makes another one
        return found

    def noted(self) -> list[Mapping[str, Any]]:
        """What running tasks have noted, as it is committed. For other threads."""
        return [task.notes for task in list(self.tasks.values()) if task.phase is Phase.RUNNING]

    @property
    def shut_s(self) -> float:
        """Seconds for which nothing has left, as the gate is shut; 0 while it is open. Asked for by other threads."""
        shut = self.shut
        return 0.0 if shut is None else time.monotonic() - shut.since

    def _raise_trouble(self) -> None:
        """What a callback of the last poll met; also when that poll itself ended in an error."""
        if self.trouble is not None:
            error, self.trouble = self.trouble, None
            raise error

    def commit_or_abort(self) -> bool:
        """Commit what is processed, before partitions or the process go away. False: it was aborted instead."""
        if self.trouble is not None:
            return False
        try:
            if self.uncommitted or self.in_transaction:
                self.commit()
            return True
        except C360Error as error:
            self.trouble = error
        except _CommitFailed as failed:
            self._look_closer(failed)
            self.trouble = TransactionAborted("a record cannot be written")
        return False

    # ============================================================================================ group membership
    def _subscribe(self) -> None:
        """Follow the lead topics that exist; govern's raw topics may be created any time."""
        if self.subscribed and time.monotonic() < self._look_again:
            return
        wanted = tuple(self.agent.lead_topics())
        if wanted != self.subscribed and wanted:
            self.consumer.subscribe(wanted, self)
            self.subscribed = wanted
        self._renew()  # its commit may fail; then the next turn looks again
        self._look_again = time.monotonic() + 5.0

    _look_again = 0.0

    def _renew(self) -> None:
        """Tasks that have other inputs by now begin anew with them, where they stand: topics and partitions are added.

        A new input has no position, in the group nor in the changelog, so it is read from its first record. Also those that
        are being restored: it may not come to an end, as the topic of an input has been deleted meanwhile.
        """
        tasks = list(self.tasks.values())
        grown = [(task, fresh) for task in tasks if (fresh := self.agent.task(task.task.lead)) != task.task]
        if not grown:
            return
        if self.uncommitted or self.in_transaction:
            self.commit()
        begun = []
        for old, task in grown:
            log.info("%s: %s has %d inputs now, %d before", self.agent.name, _named(task.lead), len(task.inputs),
                     len(old.task.inputs))  # fmt: skip
            self._drop(old)
            self.tasks[task.lead] = RunningTask(task)
            begun.append(self.tasks[task.lead])
        self._restore(begun)

    def assigned(self, partitions: Sequence[TP]) -> None:
        """Callback of poll: register and return; restoring happens beside the loop."""
        self.unmade += partitions
        self._make_tasks()

    def _make_tasks(self) -> None:
        """Of what was assigned. What inputs they have may be asked of a broker that is away: then it is asked again."""
        fresh = []
        try:
            while self.unmade:
                task = RunningTask(self.agent.task(self.unmade[0]))
                self.tasks[self.unmade.pop(0)] = task
                fresh.append(task)
        finally:
            self._restore(fresh)

    def revoked(self, partitions: Sequence[TP]) -> None:
        """Callback of poll: commit everything, then give the partitions up."""
        self.commit_or_abort()
        self._give_up(partitions)

    def lost(self, partitions: Sequence[TP]) -> None:
        """Callback of poll: another member has them already; nothing of ours may be committed."""
        self.trouble = self.trouble or TransactionAborted("partitions were lost")
        self._give_up(partitions)

    def _give_up(self, partitions: Sequence[TP]) -> None:
        self.unmade = [lead for lead in self.unmade if lead not in partitions]
        for lead in partitions:
            task = self.tasks.pop(lead, None)
            if task is not None:
                self._drop(task)

    def _drop(self, task: RunningTask) -> None:
        restoring, task.phase = task.phase is Phase.RESTORING, Phase.GONE
        self.tasks.pop(task.task.lead, None)
        self._disown(task)
        self.consumer.unfetch(task.task.inputs)
        if restoring:  # the store is in the hands of the restore thread, and may be opened there again
            self.executor.submit(task.close)
        else:
            task.close()

    def _running(self) -> list[RunningTask]:
        return [t for t in self.tasks.values() if t.phase is Phase.RUNNING]

    # ==================================================================================================== restore
    def _restore(self, tasks: list[RunningTask]) -> None:
        if not tasks:
            return
        for task in tasks:
            self._stop_running(task)
        progress = Progress()
        self.restored.append((tasks, self.executor.submit(self._restore_now, tasks, progress), progress))

    def _stop_running(self, task: RunningTask) -> None:
        task.phase = Phase.RESTORING
        self._disown(task)

    def _disown(self, task: RunningTask) -> None:
        for tp in task.task.inputs:
            self.owners.pop(tp, None)
            self.held.pop(tp, None)
        self.post.drop(task.task.inputs)

    def _restore_now(self, tasks: list[RunningTask], progress: Progress) -> bool:
        """In the restore thread: follow the changelogs, wait until the group's offsets are settled, follow the rest.

        The first time ends what a dead owner has left open in them, and offsets with it; the second time sees what a living
        one has decided meanwhile.
        """
        if self._all_gone(tasks):
            return False
        if self.standby is not None:  # before anything waits: their stores are needed here
            self.standby.release([t.task.lead for t in tasks])
        inputs = [tp for t in tasks for tp in t.task.inputs]
        states: dict[TP, TaskState] = {}
        for task in tasks:
            task.close()  # of an attempt that found the broker away
            if task.phase is Phase.GONE:
                continue
            processor = self.agent.processor(task.task)
            store = self.stores.open(self.agent.store_name(task.task.lead))
            task.processor = processor
            task.takes = processor.takes if isinstance(processor, Choosy) else None
            task.state = TaskState(store, processor.tables, self.clock)
            states[self.agent.changelog(task.task.lead)] = task.state
        reader = self.cluster.reader()
        try:
            gone = partial(self._all_gone, tasks)
            if not states or not restore(reader, states, progress, gone, self._evict):
                return False
            committed = self._committed(inputs, states)
            if not restore(reader, states, progress, gone, self._evict):
                return False
            starts = reader.starts(inputs)
        finally:
            reader.close()
        try:
            for task in tasks:
                if task.state is not None and task.phase is not Phase.GONE:
                    self._settle(task, committed, starts, tasks)
        except NeedsOperator as error:
            if self.consumer.committed(inputs, self.settings.committed_timeout_s) != committed:
                raise TaskMigrated("positions move while their tasks are restored: others have them") from error
            raise
        return True

    def _committed(self, inputs: Sequence[TP], states: Mapping[TP, TaskState]) -> Mapping[TP, int | None]:
        """The group's offsets. A dead owner may have left nothing open but those: its changelog records had not left it."""
        with suppress(BrokerAway):
            return self.consumer.committed(inputs, PATIENCE_S)
        for owner in sorted({state.positions.owner for state in states.values()} - {""}):
            self._evict(owner)
        return self.consumer.committed(inputs, self.settings.committed_timeout_s)

    def _evict(self, owner: str) -> None:
        """End the transaction that the last owner of a task has left open: its partitions are ours, so it is dead or a zombie.

        Else readers and we would wait for the broker to do it (15 to 25 s). A zombie that wakes up is fenced.
        """
        if owner == self.transactional_id:
            return  # our producer has done so when it was made
        log.info("%s: ending the transaction that %s has left open", self.agent.name, owner)
        with suppress(BrokerAway, Fenced):  # then the broker does it, in its time
            self.cluster.producer(owner).close()

    @property
    def progress(self) -> list[Progress]:
        """Of the restores that are waiting or under way; asked for by other threads."""
        return [progress for _, _, progress in list(self.restored)]

    def _stand_by(self) -> None:
        """See to the copies of what others run, on the restore thread."""
        if self.standby is None:
            return
        if self.copying is not None:
            if not self.copying.done():
                return
            self.copying.result()  # raises our own mistakes only
            self.copying = None
        if self.standby.due():
            self.copying = self.executor.submit(self.standby.follow, frozenset(self.tasks))

    def _ask_about_owners(self) -> None:
        """See to what the last owners of our tasks may have left open, on the restore thread."""
        if self.last_owners.due() and (self.asking is None or self.asking.done()):
            if self.asking is not None:
                self.asking.result()  # raises our own mistakes only
            self.asking = self.executor.submit(self.last_owners.look)

    def _transaction_since(self, owner: str) -> int | None:
        admin = self.cluster.admin()
        try:
            return admin.transaction_since(owner)
        finally:
            admin.close()

    def _all_gone(self, tasks: list[RunningTask]) -> bool:
        return self.closing or all(t.phase is Phase.GONE for t in tasks)

    def _settle(
        self,
        task: RunningTask,
        committed: Mapping[TP, int | None],
        starts: Mapping[TP, int],
        beside: Sequence[RunningTask],
    ) -> None:
        """Where a restored task goes on. The changelog knows; the group's offsets must agree with it.

        `beside`: the tasks that are restored with it, to tell what was done to all of them.
        """
        assert task.state is not None
        assert task.processor is not None
        found = task.state.positions
        if found.fingerprint not in ("", self.agent.fingerprint) and not self.settings.accept_drift:
            raise NeedsOperator(
                f"{self.agent.name}: its attributes are not those its stored state was made with."
                " Give it a new version, or fold again from the start:"
                f" c360 reset {self.agent.name} --to-earliest --execute"
            )
        positions = partitions_of(found.positions)
        for tp in task.task.inputs:
            group, own = committed[tp], positions.get(tp)
            if own is None and positions and isinstance(self.agent, Rereads) and self.agent.rereads(tp):
                group = None  # it was no input for a while; what was kept of it is gone
            if group != own and not (self.settings.adopt and own is not None):
                task.processor.resume(found.notes)  # raises where it knows better what is wrong: a topic was made anew
                stands = (
                    f"{self.agent.name}: the group {self.agent.group} stands at {_or_nothing(group)} in"
                    f" {tp.topic}/{tp.partition}, its state at {_or_nothing(own)}."
                )
                raise NeedsOperator(f"{stands} {self._explained(group, own, committed, starts, beside)}")
            start = starts[tp] if own is None else own
            if start < starts[tp]:
                raise NeedsOperator(
                    f"{self.agent.name}: {tp.topic}/{tp.partition} was read up to {start}, but begins at {starts[tp]}"
                    " now: retention has cut records that were never read."
                    f" To accept the gap: c360 reset {self.agent.name} --to-earliest --execute"
                )
            task.base[tp] = start
        task.next = dict(task.base)
        task.committed = positions.keys() & task.base.keys()
        task.claimed = found.owner == self.transactional_id or not task.committed
        if found.owner not in ("", self.transactional_id):
            self.last_owners.add(found.owner)
        task.processor.resume(found.notes)
        task.notes = task.processor.notes()

    def _explained(
        self,
        group: int | None,
        own: int | None,
        committed: Mapping[TP, int | None],
        starts: Mapping[TP, int],
        tasks: Sequence[RunningTask],
    ) -> str:
        """How a group's offset comes to be another than its state's, and what to do."""
        name = self.agent.name
        again = f"To fold again from the start: c360 reset {name} --to-earliest --execute"
        go_on = "To go on from the state: c360 worker --adopt"
        if own is None:
            return f"Its changelog does not say how far it was: it was deleted, or emptied. {again}"
        if group is None:
            return (
                "The group's offsets have expired, as nobody ran it for longer than the broker's offsets.retention.minutes,"
                f" or were deleted. Nothing is lost: its state is complete. {go_on}"
            )
        moved: dict[TP, int] = {}
        for task in tasks:
            positions = {} if task.state is None else partitions_of(task.state.positions.positions)
            at = {tp: offset for tp in task.task.inputs if (offset := committed[tp]) is not None}
            moved |= {tp: offset for tp, offset in at.items() if offset != positions.get(tp)}
        why = "Offsets were moved by another tool, which leaves its tables as they were: records would count twice, or never."
        if all(offset == starts[tp] for tp, offset in moved.items()):
            return f"{why} The group stands at the start. {again}. {go_on}"
        return (
            f"{why} To fold again from where the group stands: c360 reset {name} --to-offsets current --execute (of a time it"
            f" was moved to: --to-datetime TIME). {again}. {go_on}"
        )

    def _adopt_restored(self) -> None:
        """Tasks whose restore has ended begin to run."""
        while self.restored and self.restored[0][1].done():
            tasks, future, progress = self.restored.popleft()
            if all(t.phase is Phase.GONE for t in tasks):
                continue  # whatever came of it
            try:
                future.result()
            except BrokerAway:
                self._restore([t for t in tasks if t.phase is Phase.RESTORING])
                raise
            except TaskCorrupted as error:
                alive = [t for t in tasks if t.phase is Phase.RESTORING]
                for task in alive:
                    self._forget_store(task, error)
                self._restore(alive)
                continue
            for task in tasks:
                if task.phase is Phase.GONE:
                    continue
                task.phase = Phase.RUNNING
                self.owners.update(dict.fromkeys(task.task.inputs, task))
                if self.shut is None:
                    self.consumer.fetch(task.base)
            self.post.close(self.owners)
            if self.settings.adopt:
                self.recommitted = -math.inf  # the group is to have them at once, also when nothing moves
            self.metrics.restored(progress)

    def _corrupted(self, task: RunningTask, error: TaskCorrupted) -> None:
        """6 failed: what is committed is safe in the changelog; the disk is made again from it."""
        log.error("%s: %s; restoring the task from its changelog", self.agent.name, error)
        self._forget_store(task, error)
        self.consumer.unfetch(task.task.inputs)
        self._restore([task])

    def _forget_store(self, task: RunningTask, error: TaskCorrupted) -> None:
        task.store_failures += 1
        task.store_failed = time.monotonic()
        if task.state is not None:
            task.state.store.destroy()
            task.state = None
        if task.store_failures >= self.settings.store_tries:
            raise NeedsOperator(
                f"{self.agent.name}: the local state failed {self.settings.store_tries} times ({error})."
                " Nothing is lost: it is in Kafka. Check free space and the health of C360_STATE_DIR, then start again"
            )

    # ==================================================================================================== remedies
    def _recover(self, error: C360Error) -> None:
        """One remedy per class. What is not here (Fenced, NeedsOperator, EngineFatal …) ends the process."""
        self.computing.leave()
        try:
            self._remedy(error)
        except Evicted as evicted:  # noticed when it aborted
            self._remedy(evicted)

    def _remedy(self, error: C360Error) -> None:
        self.metrics.recovered(type(error).__name__)
        match error:
            case Shut():
                self._shut_out(error)
            case TransactionAborted():
                log.info("%s: transaction aborted (%s); rewinding", self.agent.name, error)
                self._abort_and_rewind()
            case OutOfLog() if self._overtaken():  # who has our partitions lets go of what it has read
                self._remedy(TaskMigrated(f"others read on where this member stood: {error}"))
            case TaskMigrated():
                if isinstance(error, Replaced):
                    self._count_replaced(error)
                log.info("%s: no longer a member (%s); joining again", self.agent.name, error)
                self._abort_quietly()
                self._leave_group()
            case Evicted():
                self._count_replaced(error)
                log.warning("%s: another has taken over its transactions (%s); beginning anew", self.agent.name, error)
                if self.producer is not None:
                    self.producer.close()
                    self.producer = None
                self._forget_transaction()
                self._leave_group()
            case OutcomeUnknown():
                log.warning("%s: the outcome of a commit is unknown (%s); asking the log", self.agent.name, error)
                assert self.producer is not None
                self.producer.close()
                self.producer = None
                self._forget_transaction()
                for task in self._running():
                    self.consumer.unfetch(task.task.inputs)
                    task.close()
                    self._stop_running(task)
                    self.unsettled.append(task)
            case BrokerAway():
                if self.waiting_for != str(error):
                    self.waiting_for = str(error)
                    log.warning("%s: %s; waiting", self.agent.name, error)
                self._abort_and_rewind()  # also without a transaction: the batch in hand may be half done
                time.sleep(self.settings.away_s)
            case TaskCorrupted():
                # A read failed in the middle of a batch: which store is not known, so all are made again.
                self._abort_quietly()
                for task in self._running():
                    self._corrupted(task, error)
            case _:
                with suppress(Fenced):
                    self._abort_quietly()
                raise error

    def _overtaken(self) -> bool:
        """Whether others have committed what our tasks have still to read: this process was not heard of for long, and has not
        heard of it yet."""
        bases = {tp: n for task in self._running() for tp, n in task.base.items()}
        committed = self.consumer.committed(list(bases), self.settings.committed_timeout_s)
        return any((n := committed[tp]) is not None and n > base for tp, base in bases.items())

    def _leave_group(self) -> None:
        for task in list(self.tasks.values()):
            self._drop(task)
        self.unmade.clear()
        self.consumer.unsubscribe()
        self.subscribed = ()
        self._look_again = 0.0

    def _count_replaced(self, error: Replaced | Evicted) -> None:
        """Two processes of one slot take it from each other until one of them gives up here."""
        now = time.monotonic()
        self.replaced.append(now)
        if len(self.replaced) == REPLACED_TIMES and now - self.replaced[0] < REPLACED_S:
            with suppress(Fenced):
                self._abort_quietly()
            raise Fenced(f"{error}: another process has this slot. Leave C360_SLOT unset, or give each worker its own")

    def _abort_and_rewind(self) -> None:
        if self.in_transaction:
            assert self.producer is not None
            try:
                self.producer.abort()
            except OutcomeUnknown as error:
                self._recover(error)
                return
        self._forget_transaction()
        for task in self._running():
            assert task.state is not None
            assert task.processor is not None
            task.state.rolled_back()
            task.next = dict(task.base)
            task.processor.resume(task.notes)
            if self.shut is None:
                self.consumer.fetch(task.base)
            else:
                self.consumer.unfetch(task.task.inputs)

    def _abort_quietly(self) -> None:
        """Abort if it can be done; if not, the next producer of this id will. Raises Fenced."""
        if self.in_transaction and self.producer is not None:
            try:
                self.producer.abort()
            except Fenced:
                raise  # the next producer of this id lives elsewhere already
            except C360Error as error:
                log.info("%s: abort failed: %s", self.agent.name, error)
                self.producer.close()
                self.producer = None
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self.in_transaction = False
        self.uncommitted = 0
        self.post.forget()
        self.post.close(self.owners)
        for task in self.tasks.values():
            task.heard = False


def _size(batches: Sequence[Batch]) -> tuple[int, int]:
    """Records, and bytes of their values."""
    return sum(map(len, batches)), sum(len(value) for batch in batches for value in batch.values if value)


def _named(tp: TP) -> str:
    return f"{tp.topic}/{tp.partition}"


def _or_nothing(offset: int | None) -> str:
    return "no offset" if offset is None else str(offset)
