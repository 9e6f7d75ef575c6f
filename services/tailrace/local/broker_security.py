"""Certificates, first user and authorizer of a secured embedded broker.

Clients come in by SASL_SSL with SCRAM-SHA-512. The controller listener takes the broker's own
certificate only, because KRaft keeps SCRAM passwords behind the very listener that would ask for them.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from tailrace.backends.kafka import admin
from tailrace.backends.settings import Settings
from tailrace.errors import BrokerUnavailable

ADMIN = "admin"
"""The broker's own user, who may do everything."""

ITERATIONS = 4096
"""Of SCRAM; Kafka's least. Passwords here are random and long, so that more would cost time and gain nothing."""

_BROKER = "tailrace-broker"
_VALID = dt.timedelta(days=3650)


class BrokerSecurity:
    """What a secured broker and its clients need; kept in a folder that only its user can read.

    Args:
        directory: Folder for keys, certificates and the first user's password.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "security"
        self.ca = self.directory / "ca.pem"
        self._keystore = self.directory / "broker.pem"
        self._password = self.directory / "admin.password"

    def prepare(self) -> None:
        """Makes what is missing."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._password.exists():
            _write_secret(self._password, secrets.token_urlsafe(24).encode())
        if not (self.ca.exists() and self._keystore.exists()):
            authority, key = _authority()
            _write_secret(self._keystore, _broker_keystore(authority, key))
            self.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def broker_options(self, address: str, controller: str) -> dict[str, str]:
        """Broker properties that take the place of the plaintext ones.

        Args:
            address: host:port for clients.
            controller: host:port of the controller.
        """
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        return {
            "listeners": f"SASL_SSL://{address},CONTROLLER://{controller}",
            "advertised.listeners": f"SASL_SSL://{address}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "listener.name.controller.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                f'{login} username="{ADMIN}" password="{self._admin_password()}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{ADMIN};User:CN={_BROKER}",
        }

    def format_arguments(self) -> list[str]:
        """Arguments of Kafka's format tool that make the first user."""
        return ["--add-scram", f"SCRAM-SHA-512=[name={ADMIN},password={self._admin_password()}]"]

    def admin(self, settings: Settings) -> Settings:
        """Settings of the first user."""
        return self.user(settings, ADMIN, self._admin_password())

    def user(self, settings: Settings, name: str, password: str) -> Settings:
        """Settings of a user."""
        return settings.model_copy(
            update={
                "kafka_security": "SASL_SSL",
                "kafka_username": name,
                "kafka_password": SecretStr(password),
                "kafka_ca": str(self.ca),
            }
        )

    def _admin_password(self) -> str:
        return self._password.read_text()


def add_users(settings: Settings, passwords: dict[str, str]) -> None:
    """Makes SCRAM-SHA-512 users, or gives those that exist a new password.

    Args:
        settings: Of a user who may alter the cluster.
        passwords: By user name.

    Raises:
        BrokerUnavailable: the broker does not answer, or refuses.
    """
    kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    wanted = [UserScramCredentialUpsertion(name, kind, password.encode()) for name, password in passwords.items()]
    client = admin(settings)
    for name, future in client.alter_user_scram_credentials(wanted).items():
        try:
            future.result()
        except KafkaException as error:
            raise BrokerUnavailable(f"user {name!r} cannot be made: {error.args[0].str()}") from error


def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _certificate("tailrace-embedded", "tailrace-embedded", key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def _broker_keystore(authority: x509.Certificate, signing: ec.EllipticCurvePrivateKey) -> bytes:
    """Key, certificate and chain in one PEM file, as Kafka reads it."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _certificate(_BROKER, "tailrace-embedded", key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(signing, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(pem) + authority.public_bytes(pem)


def _certificate(name: str, issuer: str, key: Any) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A day back, for clocks that differ.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _VALID)
    )


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
