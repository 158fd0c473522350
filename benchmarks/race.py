"""One contestant over the whole input, once: start it, sample it, stop it, check what it wrote.

    prepare → start → (sample every 0.1 s until all is committed) → stop → sizes → check → restore

Everything is seen from outside, and the same for all: progress is what the contestant has committed under its group.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks.check import Written, differences, found_in
from benchmarks.contestants import Contestant, Stage
from benchmarks.measure import counted, cpu_s, instructions_at, peak_rss_mb, perf_command, tree
from benchmarks.oracle import Outcome
from c360.engine.transport import TP, Admin, Cluster, Reader, TopicSpec
from c360.ops.kafka.provide import cache_root
from c360.ops.records import records

PARTITIONS = 4
SAMPLE_S = 0.1
STILL_S = 3.0  # nothing was committed for so long: look whether there is anything left to read
RACE_S = 600.0
STOP_S = 40.0
LOG_LINES = 15


class Skipped(Exception):
    """A contestant cannot take part here; the message says why."""


class Failed(Exception):
    """A contestant did not come to the end."""


@dataclass(frozen=True)
class Course:
    """What all contestants run on."""

    cluster: Cluster
    brokers: str
    input: str
    right: Outcome
    events: int
    work: Path
    commit_ms: int
    broker_pids: Sequence[int] = ()
    broker_data: Path | None = None

    def count(self, of: str) -> int:
        return self.events if of == "raw" else self.right.accepted


@dataclass(frozen=True)
class Sample:
    """What was to be seen `at_s` seconds after the start. `committed`: sum of offsets, by stage."""

    at_s: float
    committed: tuple[int, ...]
    cpu_s: float
    broker_cpu_s: float


# ---------------------------------------------------------------------------------------------------------- prepare
def prepare(contestant: Contestant) -> Path:
    """Build or install what the contestant needs, once per version of its files; returns where. Raises Skipped."""
    files = sorted(path for path in contestant.home.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]
    build = cache_root() / "benchmarks" / f"{contestant.peer}-{key}"
    script = contestant.home / "prepare.sh"
    if not script.exists() or (build / "done").exists():
        return build
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    environment = {**os.environ, "BUILD": str(build), "PYTHON": sys.executable}
    done = subprocess.run([script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Skipped(f"{script.parent.name}/prepare.sh failed: {' | '.join(done.stdout.strip().splitlines()[-3:])}")
    (build / "done").touch()
    return build


# -------------------------------------------------------------------------------------------------------- a process
class Process:
    """A contestant that runs."""

    def __init__(
        self,
        contestant: Contestant,
        course: Course,
        prefix: str,
        build: Path,
        state: Path,
        log: Path,
        *,
        core: int | None = None,
    ) -> None:
        """`core`: the only one it may run on."""
        self.name, self.log, self.report = contestant.name, log, log.with_suffix(".perf")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
        environment = {
            **clean,
            "BROKERS": course.brokers,
            "INPUT": course.input,
            "PREFIX": prefix,
            "STATE_DIR": str(state),
            "COMMIT_MS": str(course.commit_ms),
            "PORT": str(free_port()),
            "PYTHON": sys.executable,
            "BUILD": str(build),
            "MEMBER": "" if core is None else str(core),
            **contestant.environment,
        }
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        command = [*perf_command(self.report), *pinned, "env", f"PREFIX={prefix}", str(contestant.home / "run.sh")]
        self.begun = time.monotonic()
        with log.open("wb") as out:  # perf sets PREFIX to something of its own, hence env
            self.process = subprocess.Popen(
                command, cwd=course.work, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pids(self) -> list[int]:
        return [self.process.pid]

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def ready(self) -> str | None:
        """The READY line, when it has come."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith("READY")), None)

    def perf_text(self) -> str:
        """What perf has written, once it has left; "" without perf."""
        return self.report.read_text() if self.report.exists() else ""

    def check_alive(self) -> None:
        if (code := self.process.poll()) is not None:
            raise Failed(f"{self.name} ended with exit code {code}. Its log ends with:\n{self._tail()}")

    def stop(self) -> None:
        """SIGTERM; what does not leave in time is killed."""
        for pid in list(tree(self.pids)):  # not perf, which leaves with its child
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As a machine does that goes away."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


# --------------------------------------------------------------------------------------------------------- progress
class Progress:
    """What the groups of a contestant have committed; never less than before."""

    def __init__(self, stages: Sequence[Stage], names: Mapping[str, str], admin: Admin, reader: Reader) -> None:
        self.admin, self.reader = admin, reader
        self.groups = [stage.group.format_map(names) for stage in stages]
        topics = [stage.topic.format_map(names) for stage in stages]
        self.markers = [stage.markers for stage in stages]
        self.positions = [{TP(topic, p): 0 for p in range(PARTITIONS)} for topic in topics]

    def look(self) -> tuple[int, ...]:
        for group, positions in zip(self.groups, self.positions, strict=True):
            for tp, offset in self.admin.group_offsets(group).items():
                if tp in positions:
                    positions[tp] = max(positions[tp], offset)
        return tuple(sum(positions.values()) for positions in self.positions)

    def complete(self, *, still: bool) -> bool:
        """Whether everything has been read. `still`: nothing was committed for a while, so look into the log itself.

        Offsets nearly tell: after the last record there is the marker of its transaction, sometimes of another.
        """
        for positions, markers in zip(self.positions, self.markers, strict=True):
            ends = self.reader.ends(list(positions))
            left = any(end - positions[tp] > markers for tp, end in ends.items())
            if not any(ends.values()) or (left and not (still and not any(self.reader.read(positions)))):
                return False
        return True


def follow(
    running: Sequence[Process], progress: Progress, *, broker_pids: Sequence[int] = (), deadline_s: float = RACE_S
) -> list[Sample]:
    """Samples until all is committed; the last one is that of the last commit. Raises Failed.

    Seconds are those since the first process was started; CPU is that of all of them.
    """
    pids = [pid for process in running for pid in process.pids]
    begun = running[0].seconds()
    samples: list[Sample] = []
    changed = 0
    while True:
        samples.append(Sample(running[0].seconds(), progress.look(), cpu_s(pids), cpu_s(broker_pids)))
        if samples[-1].committed != samples[changed].committed:
            changed = len(samples) - 1
        since = samples[-1].at_s - samples[changed].at_s
        if any(samples[-1].committed) and progress.complete(still=since > STILL_S):
            return samples[: changed + 1]
        for process in running:
            process.check_alive()
        if samples[-1].at_s - begun > deadline_s:
            name, committed = running[0].name, samples[-1].committed
            raise Failed(f"{name} had not committed everything after {deadline_s:.0f} s: {committed}")
        time.sleep(SAMPLE_S)


def until_ready(process: Process, *, deadline_s: float = RACE_S) -> str:
    """Its READY line. Raises Failed."""
    while (line := process.ready()) is None:
        process.check_alive()
        if process.seconds() > deadline_s:
            raise Failed(f"{process.name} was not ready after {deadline_s:.0f} s")
        time.sleep(0.02)
    return line


def figures(samples: Sequence[Sample], events: int, instructions: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Per event: of the second half of the work (steady), and of all of it with the start of the process (whole).

    Where there are two hops, half of the work is done when both together have done half of theirs: the first runs
    ahead, so to wait for the second alone would leave out most of the first.
    """
    last = samples[-1]
    done = [events * statistics.mean(map(truediv, sample.committed, last.committed)) for sample in samples]
    first = next(sample for sample, n in zip(samples, done, strict=True) if n > 0)
    middle, before = next((sample, n) for sample, n in zip(samples, done, strict=True) if n >= events / 2)
    steady = events - before  # none, if everything was committed between two samples

    def us(cpu_s: float, of: float) -> float | None:
        return round(cpu_s / of * 1e6, 2) if of else None

    counts = [instructions_at(instructions, sample.at_s) for sample in (middle, last)]
    return {
        "events": events,
        "cpu_us_per_event": us(last.cpu_s - middle.cpu_s, steady),
        "cpu_us_per_event_whole": us(last.cpu_s, events),
        "instructions_per_event": round((counts[1] - counts[0]) / steady) if steady and counts[1] else None,
        "events_per_s": round(steady / (last.at_s - middle.at_s)) if steady else None,
        "broker_cpu_us_per_event": us(last.broker_cpu_s - middle.broker_cpu_s, steady),
        "first_commit_s": round(first.at_s, 1),
        "seconds": round(last.at_s, 1),
    }


# ------------------------------------------------------------------------------------------------------------ a race
def race(contestant: Contestant, course: Course, prefix: str, *, restore: bool = False) -> dict[str, Any]:
    """All figures of one run, `check` among them: "ok", or what is wrong. Raises Skipped and Failed."""
    build = prepare(contestant)
    with closing(course.cluster.admin()) as admin, closing(course.cluster.reader()) as reader:
        make_topics(contestant, prefix, admin)
        return _race(contestant, course, prefix, build, admin, reader, restore)


def make_topics(contestant: Contestant, prefix: str, admin: Admin) -> None:
    """The topics a contestant writes to; c360 makes its own."""
    if contestant.peer != "c360":
        compact = {"cleanup.policy": "compact"}
        admin.create([TopicSpec(f"{prefix}-profiles", PARTITIONS, compact), TopicSpec(f"{prefix}-dlq", PARTITIONS)])


def _race(
    contestant: Contestant, course: Course, prefix: str, build: Path, admin: Admin, reader: Reader, restore: bool
) -> dict[str, Any]:
    names = {"prefix": prefix, "input": course.input}
    state = course.work / prefix
    bytes_before, load = _changelog_bytes(course, admin, prefix), os.getloadavg()[0]
    process = Process(contestant, course, prefix, build, state, course.work / f"{prefix}-{contestant.name}.log")
    try:
        samples = follow([process], Progress(contestant.stages, names, admin, reader), broker_pids=course.broker_pids)
        memory_mb, ready = peak_rss_mb(process.pids), process.ready()
    finally:
        process.stop()
    events = course.count(contestant.reads)
    bytes_after = _changelog_bytes(course, admin, prefix)
    result = {
        **figures(samples, events, counted(process.perf_text())),
        "peak_rss_mb": round(memory_mb),
        "state_mb": megabytes(state),
        "changelog_bytes_per_event": (
            None if bytes_before is None or bytes_after is None else round((bytes_after - bytes_before) / events, 1)
        ),
        "load": round(load, 2),
        "ready": ready,
    }
    result["check"] = "; ".join(check(contestant, course, names, admin, reader, result)) or "ok"
    if restore:
        result["restore"] = _restore(contestant, course, prefix, build, state)
    shutil.rmtree(state, ignore_errors=True)
    return result


def check(
    contestant: Contestant,
    course: Course,
    names: Mapping[str, str],
    admin: Admin,
    reader: Reader,
    result: dict[str, Any],
) -> Iterator[str]:
    """What is wrong with the output; notes the number of profile records in `result`."""

    def read(topic: str | None) -> list[Written]:
        if topic is None:
            return []
        name = topic.format_map(names)
        partitions = [TP(name, p) for p in range(admin.topics()[name])]
        return [(found.key, found.value) for found in records(reader, reader.starts(partitions))]

    if contestant.copies is not None:
        wanted, found = course.count(contestant.writes), len(read(contestant.copies))
        if wanted != found:
            yield f"{found} records in {contestant.copies.format_map(names)}, not {wanted}"
    right = course.right
    profiles, dead = read(contestant.profiles), read(contestant.dead)
    if contestant.profiles is None:
        right = Outcome({}, right.dead)
    else:
        result["updates_per_event"] = round(len(profiles) / result["events"], 2)
    if contestant.dead is not None:
        yield from differences(right, found_in(profiles, dead, contestant.dialect))


def _restore(contestant: Contestant, course: Course, prefix: str, build: Path, state: Path) -> dict[str, Any]:
    """Start again without the state directory, until READY."""
    shutil.rmtree(state, ignore_errors=True)
    process = Process(contestant, course, prefix, build, state, course.work / f"{prefix}-restore.log")
    try:
        line = until_ready(process)
        return {"ready_s": round(process.seconds(), 2), "cpu_s": round(cpu_s(process.pids), 2), "line": line}
    finally:
        process.stop()


# ------------------------------------------------------------------------------------------------------------- sizes
def _changelog_bytes(course: Course, admin: Admin, prefix: str) -> int | None:
    """Bytes of the contestant's changelogs on the broker; None where its disk cannot be seen."""
    if course.broker_data is None:
        return None
    topics = [name for name in admin.topics() if prefix in name and "changelog" in name]
    logs = (log for name in topics for log in course.broker_data.glob(f"{name}-[0-9]*/*.log"))
    return sum(log.stat().st_size for log in logs)


def megabytes(directory: Path) -> float:
    return round(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6, 1)
