"""The demo: a shop's traffic through the ordinary worker, on the in-memory log or on any broker, and a check at the end."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from msgspec import to_builtins

import c360
from c360.agents.govern import Govern
from c360.agents.wire import decode_identity_change
from c360.app import App
from c360.assembly import Worker
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.errors import C360Error, UsageError
from c360.governance.keys import LocalMasterKeys, MasterKeys
from c360.governance.names import Vault
from c360.governance.sealing import KEY_BYTES
from c360.ops import keys, topics
from c360.ops.demo_rights import Rights, act
from c360.ops.load import RawRecord, load
from c360.ops.progress import at_rest
from c360.ops.records import follow, records
from c360.ops.traffic import endless, traffic
from c360.ops.verify import verify
from c360.plan import Plan
from c360.serving.metrics import lag_of
from c360.tables.store import Stores

SETTLE_S = 600.0
RAW_PARTITIONS = 4
SHOWN = 6


def shop() -> App:
    """The ordinary example app, from the checkout or from the installed package."""
    checkout = Path(c360.__file__).parent.parent
    for name, base in (("examples.shop.app", checkout), ("c360._examples.shop.app", None)):
        if base is not None:
            if not (base / "examples" / "shop").is_dir():
                continue
            if str(base) not in sys.path:
                sys.path.insert(0, str(base))
        app: App = importlib.import_module(name).app
        return app
    raise UsageError("the example shop is not installed beside c360")


@dataclass(frozen=True)
class Summary:
    """What `c360 demo --once --json` prints. `differences`: against the separate recomputation by `c360 verify`."""

    events: int
    profiles: int
    merged: int  # cookies and customers that were found to be somebody else's, too
    duplicates: int
    misfits: int
    seconds: float
    differences: int
    broker: str
    rights: Rights | None  # None: too few events for it

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = to_builtins(self)
        return said


@dataclass(frozen=True)
class Glance:
    """The demo at one moment."""

    sent: int
    folded: int
    profiles: int
    lag: int
    examples: list[dict[str, Any]]
    merges: list[tuple[str, str]]  # the latest: who, and whose profile they came to
    seconds: float


class Demo:
    """Traffic, worker and a reader of profiles. `run_once` returns when everything is folded and checked."""

    def __init__(
        self, plan: Plan, cluster: Cluster, stores: Stores, *, slot: str, master: MasterKeys | None = None
    ) -> None:
        """`master`: of an app whose keys are to outlive the demo; None: keys in memory."""
        self.plan, self.cluster = plan, cluster
        self.master = master or LocalMasterKeys([os.urandom(KEY_BYTES)])
        self.worker = Worker(plan, cluster, stores, slot, master=self.master)
        self.sent = 0
        self.profiles: dict[bytes, bytes] = {}
        self.positions: dict[TP, int] = {}
        self.changes: dict[TP, int] = {}
        self.merges: deque[tuple[str, str]] = deque(maxlen=SHOWN)
        self.begun = time.monotonic()
        self.reader = cluster.reader()
        self.feed_error: BaseException | None = None
        self.rights: Rights | None = None

    def run_once(self, events: int, seed: int, end_ms: int, show: Callable[[Glance], None]) -> Summary:
        """Send `events` records, wait until all is folded, recompute and compare."""
        seconds = self.fold(traffic(events, seed=seed, end_ms=end_ms), show, self.act)
        report = verify(self.plan, self.cluster, [a.name for a in self.plan.agents], vault=self.vault())
        govern = self._govern()
        return Summary(
            events=self.sent,
            profiles=len(self.profiles),
            merged=sum(orjson.loads(record)["subjects_total"] - 1 for record in self.profiles.values()),
            duplicates=sum(c.duplicates + c.stale for c in govern.counters.values()),
            misfits=sum(sum(c.misfits.values()) for c in govern.counters.values()),
            seconds=round(seconds, 2),
            differences=report.differences,
            broker=self.cluster.name,
            rights=self.rights,
        )

    def fold(
        self, raw: Iterator[RawRecord], show: Callable[[Glance], None], then: Callable[[], None] = lambda: None
    ) -> float:
        """Send these records, wait until the worker has folded them all, and stop it. Returns seconds it took.

        `then`: what is to happen before it is stopped.
        """
        try:
            self._start(raw, None)
            deadline = time.monotonic() + SETTLE_S
            while not self._settled():
                self._check(deadline)
                show(self.glance())
                time.sleep(0.1)
            seconds = time.monotonic() - self.begun
            show(self.glance())
            then()
            self.glance()
        except BaseException:
            self.feeding = False
            self.worker.stop()  # its threads would keep the process; what went wrong is on its way to be told
            raise
        self._stop()
        return seconds

    def act(self) -> None:
        """Somebody withdraws consent, and somebody is forgotten. Returns when all agents are at rest again."""
        self.rights = act(self.plan, self.cluster, lambda: self._check(float("inf")))
        deadline = time.monotonic() + SETTLE_S
        while not self._settled():
            self._check(deadline)
            time.sleep(0.05)

    def run(self, rate: float, seed: int, start_ms: int, show: Callable[[Glance], None]) -> None:
        """Send records at a rate until interrupted."""
        self._start(endless(rate, seed=seed, start_ms=start_ms), rate)
        try:
            while True:
                self._check(float("inf"))
                show(self.glance())
                time.sleep(0.5)
        finally:
            self._stop()

    def vault(self) -> Vault | None:
        """The keys of the app, once it has run; None where it needs none."""
        return keys.open_vault(self.plan, self.cluster, self.master, os.urandom) if self.plan.needs_keys else None

    # ------------------------------------------------------------------------------------------------------- parts
    def _start(self, raw: Iterator[RawRecord], rate: float | None) -> None:
        def feed() -> None:
            try:
                load(self._counted(raw), self.cluster, partitions=RAW_PARTITIONS, rate=rate)
            except BaseException as error:  # shown by the demo's thread
                self.feed_error = error
            finally:
                self.fed.set()

        admin = self.cluster.admin()
        existing = admin.topics()  # raises BrokerAway: a worker would wait for a broker, a demo does not
        missing = [topic.name for topic in self.plan.topics if not topic.owned and topic.name not in existing]
        admin.create([TopicSpec(name, RAW_PARTITIONS, {"retention.ms": "-1"}) for name in missing])
        if self.plan.needs_keys:
            topics.apply(self.plan, admin)
            keys.make_secret_once(self.plan, self.cluster, self.master, os.urandom)
        self.fed = threading.Event()
        self.feeding = True
        self.feeder = threading.Thread(target=feed, name="traffic", daemon=True)
        self.feeder.start()
        self.worker.prepare()
        topics.apply(self.plan, self.worker.admin)
        self.worker.start()

    def _counted(self, raw: Iterator[RawRecord]) -> Iterator[RawRecord]:
        for record in raw:
            if not self.feeding:
                return
            self.sent += 1
            yield record

    def _stop(self) -> None:
        self.feeding = False
        self.worker.stop()
        self.worker.join()

    def _check(self, deadline: float) -> None:
        if self.feed_error is not None:
            raise self.feed_error
        if self.worker.error is not None:
            raise self.worker.error
        if time.monotonic() > deadline:
            raise C360Error("the demo did not come to rest in time; run it again with C360 logs: c360 worker")

    def _settled(self) -> bool:
        return self.fed.is_set() and bool(self.worker.loops) and at_rest(self.plan, self.worker.admin, self.reader)

    def _govern(self) -> Govern:
        agents: list[object] = [loop.agent for loop in self.worker.loops]
        return next(a for a in agents if isinstance(a, Govern))

    def glance(self) -> Glance:
        """Read what the projection wrote since the last look."""
        topic = self.plan.projected(self.plan.projections[0])
        partitions = [TP(topic, p) for p in range(self.plan.partitions)]
        if not self.positions:
            self.positions = self.reader.starts(partitions)
        follow(self.reader, self.positions, self.profiles)
        self._follow_merges()
        newest = list(self.profiles)[-SHOWN:]
        lag = lag_of(self.worker.loops, self.reader)
        folded = sum(loop.metrics.records for loop in self.worker.loops if isinstance(loop.agent, Govern))
        return Glance(
            self.sent,
            folded,
            len(self.profiles),
            sum(lag.values()),
            [orjson.loads(self.profiles[k]) for k in newest],
            list(self.merges),
            time.monotonic() - self.begun,
        )

    def _follow_merges(self) -> None:
        """Read who was found to be whose since the last look."""
        topics = [self.plan.identity_changes(identity) for identity in self.plan.identities[:1]]
        if not self.changes:
            self.changes = self.reader.starts([TP(t, p) for t in topics for p in range(self.plan.partitions)])
        for tp, offset, key, value in records(self.reader, self.changes.copy()):
            self.changes[tp] = offset + 1
            change = decode_identity_change(value or b"")
            if change.change == "merged" and key is not None:
                self.merges.append((change.subject, key.decode()))
