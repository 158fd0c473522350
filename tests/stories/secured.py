"""A real broker that lets in who comes by TLS and a password, and does for them what its ACLs say."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from c360.ops import dev_kafka
from tests.chaos.proxy import HOST, Network

DOOR = "SECURE"
MECHANISM = "SCRAM-SHA-512"


@dataclass(frozen=True)
class Right:
    """What a user may do with one thing, or with all whose names begin so."""

    kind: ResourceType
    name: str
    operations: Sequence[AclOperation]
    prefix: bool = False


@dataclass(frozen=True)
class Secured:
    """`inside` is for the owner of the cluster, `outside` for all others."""

    inside: str
    outside: str
    certificate: Path

    def user(self, name: str, password: str, rights: Sequence[Right]) -> dict[str, str]:
        """Let somebody in; their settings, by the names of librdkafka."""
        admin = AdminClient({"bootstrap.servers": self.inside})
        said = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        asked = [
            *admin.alter_user_scram_credentials([UserScramCredentialUpsertion(name, said, password.encode())]).values()
        ]
        asked += admin.create_acls(
            [
                AclBinding(right.kind, right.name,
                           ResourcePatternType.PREFIXED if right.prefix else ResourcePatternType.LITERAL,
                           f"User:{name}", "*", operation, AclPermissionType.ALLOW)
                for right in rights
                for operation in right.operations
            ]
        ).values()  # fmt: skip
        for future in asked:
            future.result(20)
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.certificate),
            "sasl.mechanism": MECHANISM,
            "sasl.username": name,
            "sasl.password": password,
        }


@contextmanager
def secured(directory: Path) -> Iterator[Secured]:
    """One broker, gone at the end of the block."""
    key, certificate = _certificate()
    trusted = directory / "broker.pem"
    trusted.write_text(certificate)
    listener = f"listener.name.{DOOR.lower()}"
    overrides = {
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{DOOR}:SASL_SSL",
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.key": key,
        f"{listener}.ssl.keystore.certificate.chain": certificate,
        f"{listener}.sasl.enabled.mechanisms": MECHANISM,
        f"{listener}.{MECHANISM.lower()}.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with Network() as network:
        proxy = network.proxy()
        with dev_kafka.start(overrides=overrides, doors={DOOR: [f"{HOST}:{proxy.port}"]}) as running:
            ((host, port),) = running.doors[DOOR]
            proxy.target = (host, port)
            yield Secured(running.bootstrap, f"{HOST}:{proxy.port}", trusted)


def _certificate() -> tuple[str, str]:
    """A key and its own certificate, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "c360 test broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()
