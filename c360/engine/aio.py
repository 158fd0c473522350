"""aiokafka, for the little that librdkafka has no call for, with librdkafka's settings.

Static members (KIP-345), since when a transaction has been open (KIP-664), quotas of clients (KIP-546), and how many bytes
topics have (KIP-113).

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
from aiokafka.protocol.types import (  # type: ignore[import-untyped]
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Float64,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

from c360.engine.transport import QUOTAS, TP
from c360.errors import BrokerAway

log = logging.getLogger("c360.kafka")

ANSWER_S: Final = 5.0
PAUSE_S: Final = 0.05
STABLE: Final = "Stable"  # the group's state between rebalances
ONGOING: Final = "Ongoing"  # a transaction's state before anybody has decided
UNKNOWN_ID: Final = 105  # TRANSACTIONAL_ID_NOT_FOUND
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
        _within(_member(settings), _leave, settings, member)
    except BrokerAway as error:
        log.info("%s; its session will run out", error)


def make_way(settings: Mapping[str, str], topics: Sequence[str]) -> None:
    """Before a static member joins: take its predecessor out, unless it can simply go on where that one was.

    Raises BrokerAway when nobody answers: joining unseen could leave partitions without an owner.
    """
    _within(_member(settings), _make_way, settings, topics)


def transaction_since(settings: Mapping[str, str], transactional_id: str) -> int | None:
    """When the open transaction of this id began, epoch ms by the broker's clock; None: none is open.

    Raises BrokerAway.
    """
    since: int | None = _within(f"transactions of {transactional_id}", _transaction_since, settings, transactional_id)
    return since


def set_quota(settings: Mapping[str, str], client_id: str, quota: Mapping[str, float]) -> None:
    """Bytes a second and broker that clients of this id may do; what is not named has no quota of its own.

    Raises BrokerAway, also when they refuse.
    """
    _within(f"quotas of {client_id}", _set_quota, settings, client_id, quota)


def topic_bytes(settings: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Bytes of topics on the disks of all brokers. Raises BrokerAway."""
    found: dict[str, int] = _within("sizes of topics", _topic_bytes, settings, names)
    return found


def _member(settings: Mapping[str, str]) -> str:
    return f"{settings['group.id']}: static member {settings['group.instance.id']}"


def _within(who: str, work: Callable[..., Coroutine[Any, Any, Any]], *given: Any) -> Any:
    try:
        return asyncio.run(asyncio.wait_for(_patiently(work, *given), ANSWER_S))
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerAway(f"{who}: no answer ({error or type(error).__name__})") from None


async def _patiently(work: Callable[..., Coroutine[Any, Any, Any]], *given: Any) -> Any:
    """Coordinators move, and load what they coordinate."""
    while True:
        try:
            return await work(*given)
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(PAUSE_S)


async def _leave(settings: Mapping[str, str], member: str) -> None:
    async with _coordinator(settings, CoordinationType.GROUP, settings["group.id"]) as send:
        await send(_Leave(settings["group.id"], settings["group.instance.id"], member))


async def _make_way(settings: Mapping[str, str], topics: Sequence[str]) -> None:
    group, instance = settings["group.id"], settings["group.instance.id"]
    async with _coordinator(settings, CoordinationType.GROUP, group, topics) as send:
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


async def _transaction_since(settings: Mapping[str, str], transactional_id: str) -> int | None:
    async with _coordinator(settings, CoordinationType.TRANSACTION, transactional_id) as send:
        ((code, _, state, _, since_ms, *_),) = (await send(_DescribeTransactions(transactional_id))).states
    if code not in (0, UNKNOWN_ID):
        raise for_code(code)(transactional_id)
    return since_ms if state == ONGOING else None


async def _set_quota(settings: Mapping[str, str], client_id: str, quota: Mapping[str, float]) -> None:
    async with _client(settings) as client:
        ((code, message, _),) = (await client.send(_any(client), _AlterQuotas(client_id, quota))).entries
    if code:
        raise for_code(code)(message or client_id)


async def _topic_bytes(settings: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    found = dict.fromkeys(names, 0)
    async with _client(settings, names) as client:
        wanted = [(name, sorted(client.cluster.partitions_for_topic(name) or ())) for name in names]
        for broker in client.cluster.brokers():
            for code, _, topics in (await client.send(broker.nodeId, _LogDirs(wanted))).results:
                if code:
                    raise for_code(code)("log directories")
                for name, partitions in topics:
                    found[name] += sum(size for _, size, _, _ in partitions)
    return found


def _any(client: Any) -> int:
    node: int = client.get_random_node()
    return node


def _assigned(encoded: bytes) -> Sequence[tuple[str, Sequence[int]]]:
    if not encoded:
        return ()
    found: Sequence[tuple[str, Sequence[int]]] = ConsumerProtocolMemberAssignment.decode(encoded).assignment
    return found


class _Coordinator:
    """Sends to the broker that coordinates a group, or the transactions of an id."""

    def __init__(self, client: Any, node: int) -> None:
        self.client, self.node = client, node

    def partitions_of(self, topic: str) -> set[TP]:
        """Of a topic that metadata was fetched of; none when it is not known (yet)."""
        return {TP(topic, p) for p in self.client.cluster.partitions_for_topic(topic) or ()}

    async def __call__(self, request: Any) -> Any:
        return await self.client.send(self.node, request, group=ConnectionGroup.COORDINATION)


@asynccontextmanager
async def _client(settings: Mapping[str, str], topics: Sequence[str] = ()) -> AsyncIterator[Any]:
    client = AIOKafkaClient(bootstrap_servers=settings["bootstrap.servers"].split(","), **security(settings))
    await client.bootstrap()
    try:
        if topics:
            await client.set_topics(topics)
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _coordinator(
    settings: Mapping[str, str], kind: CoordinationType, of: str, topics: Sequence[str] = ()
) -> AsyncIterator[_Coordinator]:
    async with _client(settings, topics) as client:
        node = await client.coordinator_lookup(kind, of)
        while not await client.ready(node, group=ConnectionGroup.COORDINATION):
            await asyncio.sleep(0.01)
        yield _Coordinator(client, node)


# aiokafka knows the first two without the names of static members, and not the others.
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


class _DescribeTransactionsResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 65, 0
    TOPIC = Schema(("topic", CompactString()), ("partitions", CompactArray(Int32)), ("tags", TaggedFields))
    STATE = Schema(
        ("error_code", Int16), ("transactional_id", CompactString()), ("state", CompactString()), ("timeout_ms", Int32),
        ("start_ms", Int64), ("producer_id", Int64), ("producer_epoch", Int16), ("topics", CompactArray(TOPIC)),
        ("tags", TaggedFields),
    )  # fmt: skip
    SCHEMA = Schema(("throttle_time_ms", Int32), ("states", CompactArray(STATE)), ("tags", TaggedFields))


class _DescribeTransactionsV0(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = 65, 0, _DescribeTransactionsResponse, True
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString())), ("tags", TaggedFields))


class _DescribeTransactions(Request[_DescribeTransactionsV0]):  # type: ignore[misc]
    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self.transactional_id = transactional_id

    def build(self, version: type[Any]) -> Any:
        return version([self.transactional_id], {})


class _AlterQuotasResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 49, 0
    ENTITY = Schema(("type", String()), ("name", String()))
    ENTRY = Schema(("error_code", Int16), ("error_message", String()), ("entity", Array(ENTITY)))
    SCHEMA = Schema(("throttle_time_ms", Int32), ("entries", Array(ENTRY)))


class _AlterQuotasV0(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE = 49, 0, _AlterQuotasResponse
    ENTITY = Schema(("type", String()), ("name", String()))
    CHANGE = Schema(("key", String()), ("value", Float64), ("remove", Boolean))
    SCHEMA = Schema(
        ("entries", Array(Schema(("entity", Array(ENTITY)), ("changes", Array(CHANGE))))), ("validate_only", Boolean)
    )


class _AlterQuotas(Request[_AlterQuotasV0]):  # type: ignore[misc]
    API_KEY = 49

    def __init__(self, client_id: str, quota: Mapping[str, float]) -> None:
        self.client_id, self.quota = client_id, quota

    def build(self, version: type[Any]) -> Any:
        changes = [(name, float(self.quota.get(name, 0)), name not in self.quota) for name in QUOTAS]
        return version([([("client-id", self.client_id)], changes)], False)


class _LogDirsResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 35, 1
    PARTITION = Schema(("partition", Int32), ("size", Int64), ("lag", Int64), ("is_future", Boolean))
    TOPIC = Schema(("name", String()), ("partitions", Array(PARTITION)))
    RESULT = Schema(("error_code", Int16), ("directory", String()), ("topics", Array(TOPIC)))
    SCHEMA = Schema(("throttle_time_ms", Int32), ("results", Array(RESULT)))


class _LogDirsV1(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE = 35, 1, _LogDirsResponse
    SCHEMA = Schema(("topics", Array(Schema(("name", String()), ("partitions", Array(Int32))))))


class _LogDirs(Request[_LogDirsV1]):  # type: ignore[misc]
    API_KEY = 35

    def __init__(self, topics: Sequence[tuple[str, Sequence[int]]]) -> None:
        self.topics = topics

    def build(self, version: type[Any]) -> Any:
        return version(self.topics)
