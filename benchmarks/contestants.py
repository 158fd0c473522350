"""Who takes part: what to start, where its progress and its output can be read. Nothing is started here.

A contestant is a directory under `peers/` with a `run.sh` that keeps to section 6 of spec.md, and, where something has to
be built or installed first, a `prepare.sh` that does it into $BUILD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.check import C360, PLAIN, Dialect

PEERS = Path(__file__).parent / "peers"
GOVERNED = "{prefix}.governed.events.v1"


@dataclass(frozen=True)
class Stage:
    """A hop: a consumer group and what it reads. `{prefix}` and `{input}` stand for the names of a round."""

    group: str = "{prefix}"
    topic: str = "{input}"
    markers: int = 0  # that come after the last record: 1 where records are written in transactions


@dataclass(frozen=True)
class Contestant:
    """One line of the table."""

    name: str
    peer: str  # directory under peers/
    guarantee: str = "exactly once"
    stages: tuple[Stage, ...] = (Stage(),)
    environment: Mapping[str, str] = field(default_factory=dict)
    continues: str = ""  # the contestant whose topics of the same round this one reads
    profiles: str | None = "{prefix}-profiles"  # topic of profiles; None: writes none
    dead: str | None = "{prefix}-dlq"
    copies: str | None = None  # topic that must hold as many records as there are raw ones, or accepted ones
    reads: Literal["raw", "accepted"] = "raw"
    writes: Literal["raw", "accepted"] = "raw"
    dialect: Dialect = PLAIN

    @property
    def home(self) -> Path:
        return PEERS / self.peer


GOVERN = Stage("{prefix}.govern.v1")
PROJECT = Stage("{prefix}.profile.v1", GOVERNED, markers=1)
C360_PROFILES, C360_DEAD = "{prefix}.profile.v1", "{prefix}.dlq"

ALL = {
    contestant.name: contestant
    for contestant in (
        Contestant("null", "null", profiles=None, dead=None, copies="{prefix}-profiles"),
        Contestant("kafka_streams", "kafka_streams"),
        Contestant(
            "kafka_streams_2_hops",
            "kafka_streams",
            stages=(Stage(), Stage("{prefix}", "{prefix}-hop-repartition", markers=1)),
            environment={"REPARTITION": "true"},
        ),
        Contestant("kafka_streams_1s", "kafka_streams", environment={"COMMIT_MS": "1000"}),
        Contestant("c360", "c360", stages=(GOVERN, PROJECT), profiles=C360_PROFILES, dead=C360_DEAD, dialect=C360),
        Contestant(
            "c360_govern",
            "c360",
            stages=(GOVERN,),
            environment={"ONLY": "govern"},
            profiles=None,
            dead=C360_DEAD,
            copies=GOVERNED,
            writes="accepted",
            dialect=C360,
        ),
        Contestant(
            "c360_projection",
            "c360",
            stages=(PROJECT,),
            environment={"ONLY": "profile@1"},
            continues="c360_govern",
            profiles=C360_PROFILES,
            dead=C360_DEAD,
            reads="accepted",
            dialect=C360,
        ),
        Contestant("quix", "quix"),
        Contestant("faust", "faust", guarantee="at least once"),
    )
}
DEFAULT = ("null", "kafka_streams", "c360", "c360_govern", "c360_projection")
