"""What goes wrong, on purpose. Each fault is a function of the stage; it returns when it is over, not when all is well."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.crew import Crew
from tests.chaos.ground import Ground

SESSION_S = 6.0  # of a member, as c360 sets it
TRANSACTION_S = 15.0


@dataclass(frozen=True)
class Stage:
    """What faults are done to, and the dice that choose."""

    ground: Ground
    crew: Crew
    dice: random.Random
    stopped: list[int] = field(default_factory=list)  # exit codes of clean stops

    def worker(self) -> int:
        return self.dice.randrange(self.crew.size)

    def broker(self) -> int:
        return self.dice.randrange(self.ground.brokers)

    def wait(self, least_s: float, most_s: float) -> None:
        """The fault itself: so long it lasts."""
        time.sleep(self.dice.uniform(least_s, most_s))


Fault = Callable[[Stage], None]


def kill(stage: Stage) -> None:
    """kill -9 of a worker, started again at once"""
    worker = stage.worker()
    stage.crew.kill(worker)
    stage.crew.start(worker)


def kill_two(stage: Stage) -> None:
    """kill -9 of two workers, the second while the others take over from the first; both started again"""
    first, second = stage.dice.sample(range(stage.crew.size), 2)
    stage.crew.kill(first)
    stage.wait(0, SESSION_S + 2)
    stage.crew.kill(second)
    stage.wait(0, 2)
    stage.crew.start(first)
    stage.crew.start(second)


def kill_for_long(stage: Stage) -> None:
    """kill -9 of a worker that comes back long after the others have taken over"""
    worker = stage.worker()
    stage.crew.kill(worker)
    stage.wait(SESSION_S + 4, SESSION_S + 8)
    stage.crew.start(worker)


def _frozen(stage: Stage, least_s: float, most_s: float) -> None:
    worker = stage.worker()
    stage.crew.freeze(worker)
    stage.wait(least_s, most_s)
    stage.crew.thaw(worker)


def blink(stage: Stage) -> None:
    """SIGSTOP of a worker for less than its session, SIGCONT"""
    _frozen(stage, 1, SESSION_S - 2)


def freeze(stage: Stage) -> None:
    """SIGSTOP of a worker for longer than its session, SIGCONT"""
    _frozen(stage, SESSION_S + 2, SESSION_S + 6)


def freeze_for_long(stage: Stage) -> None:
    """SIGSTOP of a worker for longer than its transaction may take, SIGCONT"""
    _frozen(stage, TRANSACTION_S + 12, TRANSACTION_S + 16)  # the broker looks for such transactions every 10 s


def rolling_restart(stage: Stage) -> None:
    """SIGTERM and start of each worker, one after the other"""
    for worker in stage.dice.sample(range(stage.crew.size), stage.crew.size):
        stage.stopped.append(stage.crew.stop(worker))
        stage.wait(0, 1)
        stage.crew.start(worker)
        stage.wait(1, 4)


def short_cut(stage: Stage) -> None:
    """network between a worker and all brokers cut for less than its session; what was under way arrives late"""
    worker = stage.worker()
    stage.ground.cut(worker, range(stage.ground.brokers))
    stage.wait(1, SESSION_S - 2)
    stage.ground.mend(worker, late=True)


def cut(stage: Stage) -> None:
    """network between a worker and all brokers cut for longer than its session; then late, or lost"""
    worker = stage.worker()
    stage.ground.cut(worker, range(stage.ground.brokers))
    stage.wait(SESSION_S + 2, SESSION_S + 8)
    stage.ground.mend(worker, late=stage.dice.random() < 0.5)


def partial_cut(stage: Stage) -> None:
    """network between a worker and one of the brokers cut for longer than its session; then late, or lost"""
    worker, broker = stage.worker(), stage.broker()
    stage.ground.cut(worker, [broker])
    stage.wait(SESSION_S + 2, SESSION_S + 8)
    stage.ground.mend(worker, late=stage.dice.random() < 0.5)


def restart_broker(stage: Stage) -> None:
    """SIGTERM of a broker, started again"""
    broker = stage.broker()
    stage.ground.stop(broker)
    stage.wait(0, 3)
    stage.ground.start(broker)


def kill_broker(stage: Stage) -> None:
    """kill -9 of a broker, started again"""
    broker = stage.broker()
    stage.ground.kill(broker)
    stage.wait(0, 8)
    stage.ground.start(broker)


def freeze_broker(stage: Stage) -> None:
    """SIGSTOP of a broker, SIGCONT"""
    broker = stage.broker()
    stage.ground.signal(broker, signal.SIGSTOP)
    stage.wait(2, 12)
    stage.ground.signal(broker, signal.SIGCONT)


def kill_all_brokers(stage: Stage) -> None:
    """kill -9 of all brokers, started again"""
    for broker in range(stage.ground.brokers):
        stage.ground.kill(broker)
    stage.wait(0, 3)
    stage.ground.start(*range(stage.ground.brokers))


def kill_worker_and_broker(stage: Stage) -> None:
    """kill -9 of a worker and of a broker at once, both started again"""
    worker, broker = stage.worker(), stage.broker()
    stage.crew.kill(worker)
    stage.ground.kill(broker)
    stage.wait(0, 4)
    stage.ground.start(broker)
    stage.crew.start(worker)


OF_WORKERS: tuple[Fault, ...] = (
    kill,
    kill_two,
    kill_for_long,
    blink,
    freeze,
    freeze_for_long,
    rolling_restart,
    short_cut,
    cut,
    restart_broker,
    kill_broker,
    freeze_broker,
    kill_worker_and_broker,
)
OF_CLUSTERS: tuple[Fault, ...] = (partial_cut, kill_all_brokers)  # with one broker these are others


def faults_for(brokers: int) -> tuple[Fault, ...]:
    return OF_WORKERS if brokers == 1 else OF_WORKERS + OF_CLUSTERS


def deck(faults: tuple[Fault, ...], dice: random.Random) -> list[Fault]:
    """Each once, in a random order: draw from it again when it is empty."""
    return dice.sample(faults, len(faults))
