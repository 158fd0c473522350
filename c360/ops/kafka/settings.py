"""What a development broker is told: server properties for one node of one or three.

Pure: settings in, text out. The values are for a small machine and for tests that must not wait; none of them changes
what exactly-once means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER_ID = "c360devKafkaAAAAAAAAAA"  # 22 characters of base64, not beginning with "-"
Value = str | int | float | bool


@dataclass(frozen=True)
class Door:
    """One more listener of a broker. Its clients are told `advertised` (host:port): what stands there, such as a proxy."""

    name: str
    port: int
    advertised: str


@dataclass(frozen=True)
class Node:
    """One broker that is a controller too. `data` is its log directory."""

    id: int
    host: str
    port: int
    controller_port: int
    data: Path
    doors: tuple[Door, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def broker_properties(
    node: Node, nodes: Sequence[Node], overrides: Mapping[str, Value], *, bind: str = "127.0.0.1"
) -> dict[str, str]:
    """Server properties of `node` in a cluster of `nodes`: replication 3 and min ISR 2 where there are three.

    `overrides` (Kafka's names) win. `bind` is the address listened on; clients are told `node.host`.
    """
    copies, in_sync = (3, 2) if len(nodes) >= 3 else (1, 1)
    listens = {"PLAINTEXT": node.port, "CONTROLLER": node.controller_port, **{d.name: d.port for d in node.doors}}
    tells = {"PLAINTEXT": node.address, **{d.name: d.advertised for d in node.doors}}
    properties: dict[str, Value] = {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "controller.quorum.voters": ",".join(f"{n.id}@{n.host}:{n.controller_port}" for n in nodes),
        "log.dirs": str(node.data),
        "listeners": ",".join(f"{name}://{bind}:{port}" for name, port in listens.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in tells.items()),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listens),
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "auto.create.topics.enable": False,  # a misspelt topic is an error here as it is in production
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 100,
        "log.cleaner.dedupe.buffer.size": 4 << 20,  # 128 MB by default
        "log.cleaner.backoff.ms": 200,
        "log.index.size.max.bytes": 1 << 20,  # 10 MB per partition and index by default
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        **overrides,
    }
    return {name: _text(value) for name, value in properties.items()}


def text(properties: Mapping[str, str]) -> str:
    """A Java properties file."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def environment(properties: Mapping[str, str]) -> dict[str, str]:
    """The same for the official image, which reads KAFKA_* variables (dots become one underscore, dashes three)."""
    return {
        "KAFKA_" + name.upper().replace("_", "__").replace("-", "___").replace(".", "_"): value
        for name, value in properties.items()
    }


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
