"""aiokafka, for the little that librdkafka has no call for, with librdkafka's settings.

A static member keeps its partitions while its process restarts, and so does not leave its group when it is closed: the
others would wait for its session to run out. It leaves by a request of its own (KIP-345), which librdkafka does not have.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from aiokafka.protocol.group import LeaveGroupRequest  # type: ignore[import-untyped]

log = logging.getLogger("c360.kafka")

LEAVE_S: Final = 5.0
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
    """Take a member out of its group, if that can be done at once; else its session runs out."""
    group = settings["group.id"]
    try:
        asyncio.run(asyncio.wait_for(_leave(settings, group, member), LEAVE_S))
    except (KafkaError, OSError, ValueError, TimeoutError) as error:
        log.info("%s: leaving at once was not possible (%s); its session will run out", group, error)


async def _leave(settings: Mapping[str, str], group: str, member: str) -> None:
    client = AIOKafkaClient(bootstrap_servers=settings["bootstrap.servers"].split(","), **security(settings))
    await client.bootstrap()
    try:
        node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        while not await client.ready(node, group=ConnectionGroup.COORDINATION):
            await asyncio.sleep(0.01)
        await client.send(node, LeaveGroupRequest(group, member), group=ConnectionGroup.COORDINATION)
    finally:
        await client.close()
