"""aiokafka, for the little that librdkafka has no call for, with librdkafka's settings: static members (KIP-345).

A static member keeps its partitions while its process restarts, and so does not leave its group when it is closed: the
others would wait for its session to run out. It leaves by a request of its own.

A static member that comes back is given what its predecessor had, and the group does not rebalance, as if nothing had
happened. So what the predecessor owed to the group is owed for ever: partitions it had given up and not yet passed on,
topics that only the newcomer subscribes to, partitions added meanwhile. A newcomer therefore looks at the group first,
and takes its predecessor out of it unless everything has an owner.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType  # type: ignore[import-untyped]
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, for_code  # type: ignore[import-untyped]
from aiokafka.protocol.api import Request, RequestStruct, Response  # type: ignore[import-untyped]
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String  # type: ignore[import-untyped]

from c360.engine.transport import TP
from c360.errors import BrokerAway

log = logging.getLogger("c360.kafka")

LEAVE_S: Final = 5.0
PAUSE_S: Final = 0.05
STABLE: Final = "Stable"  # the group's state between rebalances
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def security(settings: Mapping[str, str]) -> dict[str, Any]:
    """aiokafka's arguments for TLS and SASL, from librdkafka's settings. Raises ValueError for what it cannot do."""
    protocol = settings.get("security.protocol", "plaintext").upper()
    said: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        said["ssl_context"] = _tls(settings)
    if protocol.startswith("SASL"):
        mechanism = settings.get("sasl.mechanism") or settings.get("sasl.mechanisms", "GSSAPI")
        if mechanism not in MECHANISMS:
            raise ValueError(f"sasl.mechanism {mechanism}")
        said |= {
            "sasl_mechanism": mechanism,
            "sasl_plain_username": settings.get("sasl.username", ""),
            "sasl_plain_password": settings.get("sasl.password", ""),
        }
    return said


def _tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    for name in ("ssl.keystore.location", "ssl.certificate.pem", "ssl.key.pem"):
        if name in settings:
            raise ValueError(name)
    context = ssl.create_default_context(cafile=settings.get("ssl.ca.location"), cadata=settings.get("ssl.ca.pem"))
    if "ssl.certificate.location" in settings:
        context.load_cert_chain(
            settings["ssl.certificate.location"], settings.get("ssl.key.location"), settings.get("ssl.key.password")
        )
    if settings.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if settings.get("enable.ssl.certificate.verification") == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def leave(settings: Mapping[str, str], member: str) -> None:
    """Take a static member out of its group, if that can be done at once; else its session runs out.

    `member`: the id that the group gave it; if another has come in its place, that one stays.
    """
    try:
        _within(LEAVE_S, _leave, settings, member)
    except BrokerAway as error:
        log.info("%s; its session will run out", error)


def make_way(settings: Mapping[str, str], topics: Sequence[str]) -> None:
    """Before a static member joins: take its predecessor out, unless it can simply go on where that one was.

    Raises BrokerAway when nobody answers: joining unseen could leave partitions without an owner.
    """
    _within(LEAVE_S, _make_way, settings, topics)


def _within(
    seconds: float, work: Callable[..., Coroutine[Any, Any, None]], settings: Mapping[str, str], *given: Any
) -> None:
    try:
        asyncio.run(asyncio.wait_for(_patiently(work, settings, *given), seconds))
    except (KafkaError, OSError, TimeoutError) as error:
        who = f"{settings['group.id']}: static member {settings['group.instance.id']}"
        raise BrokerAway(f"{who}: no answer ({error or type(error).__name__})") from None


async def _patiently(work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
    """Coordinators move, and load their groups."""
    while True:
        try:
            await work(*given)
            return
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(PAUSE_S)


async def _leave(settings: Mapping[str, str], member: str) -> None:
    async with _coordinator(settings) as send:
        await send(_Leave(settings["group.id"], settings["group.instance.id"], member))


async def _make_way(settings: Mapping[str, str], topics: Sequence[str]) -> None:
    group, instance = settings["group.id"], settings["group.instance.id"]
    async with _coordinator(settings, topics) as send:
        ((code, _, state, _, _, members, _),) = (await send(_Describe(group))).groups
        if code:
            raise for_code(code)(group)
        if instance not in (member[1] for member in members):
            return
        owned = {TP(topic, p) for member in members for topic, parts in _assigned(member[5]) for p in parts}
        if state == STABLE and all(parts and owned.issuperset(parts) for parts in map(send.partitions_of, topics)):
            return
        log.info("%s: %s, not everything has an owner; joining anew instead of where %s was", group, state, instance)
        await send(_Leave(group, instance))


def _assigned(encoded: bytes) -> Sequence[tuple[str, Sequence[int]]]:
    if not encoded:
        return ()
    found: Sequence[tuple[str, Sequence[int]]] = ConsumerProtocolMemberAssignment.decode(encoded).assignment
    return found


class _Coordinator:
    """Sends to the broker that coordinates a group."""

    def __init__(self, client: Any, node: int) -> None:
        self.client, self.node = client, node

    def partitions_of(self, topic: str) -> set[TP]:
        """Of a topic that metadata was fetched of; none when it is not known (yet)."""
        return {TP(topic, p) for p in self.client.cluster.partitions_for_topic(topic) or ()}

    async def __call__(self, request: Any) -> Any:
        return await self.client.send(self.node, request, group=ConnectionGroup.COORDINATION)


@asynccontextmanager
async def _coordinator(settings: Mapping[str, str], topics: Sequence[str] = ()) -> AsyncIterator[_Coordinator]:
    client = AIOKafkaClient(bootstrap_servers=settings["bootstrap.servers"].split(","), **security(settings))
    await client.bootstrap()
    try:
        if topics:
            await client.set_topics(topics)
        node = await client.coordinator_lookup(CoordinationType.GROUP, settings["group.id"])
        while not await client.ready(node, group=ConnectionGroup.COORDINATION):
            await asyncio.sleep(0.01)
        yield _Coordinator(client, node)
    finally:
        await client.close()


# aiokafka knows neither request with the names of static members.
class _LeaveResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 13, 3
    MEMBER = Schema(("member_id", String()), ("group_instance_id", String()), ("error_code", Int16))
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16), ("members", Array(MEMBER)))


class _LeaveV3(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE = 13, 3, _LeaveResponse
    MEMBER = Schema(("member_id", String()), ("group_instance_id", String()))
    SCHEMA = Schema(("group", String()), ("members", Array(MEMBER)))


class _Leave(Request[_LeaveV3]):  # type: ignore[misc]
    """`member` "": whoever has the instance's name now."""

    API_KEY = 13

    def __init__(self, group: str, instance: str, member: str = "") -> None:
        self.group, self.instance, self.member = group, instance, member

    def build(self, version: type[Any]) -> Any:
        return version(self.group, [(self.member, self.instance)])


class _DescribeResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 15, 4
    MEMBER = Schema(
        ("member_id", String()), ("group_instance_id", String()), ("client_id", String()), ("client_host", String()),
        ("metadata", Bytes), ("assignment", Bytes),
    )  # fmt: skip
    GROUP = Schema(
        ("error_code", Int16), ("group", String()), ("state", String()), ("protocol_type", String()),
        ("protocol", String()), ("members", Array(MEMBER)), ("authorized_operations", Int32),
    )  # fmt: skip
    SCHEMA = Schema(("throttle_time_ms", Int32), ("groups", Array(GROUP)))


class _DescribeV4(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE = 15, 4, _DescribeResponse
    SCHEMA = Schema(("groups", Array(String())), ("include_authorized_operations", Boolean))


class _Describe(Request[_DescribeV4]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self.group = group

    def build(self, version: type[Any]) -> Any:
        return version([self.group], False)
