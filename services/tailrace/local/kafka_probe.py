"""Why a broker cannot be used, told from the client's error and from a handshake of our own.

The client hides the cause behind a time-out and calls several causes by one code. So its first error
only says that something is wrong; what it is, is then seen by connecting once more without it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException

from tailrace.backends.kafka import admin
from tailrace.backends.settings import Settings

ANSWER_S = 2.0
SILENT_S = 0.3
HANDSHAKE_S = 0.7
"""A listener without TLS hangs up on a TLS greeting at once; one that stays silent is given this long."""

_EXPIRED, _NOT_YET_VALID, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's verification codes; every other one means that no trusted authority vouches for the certificate."""


class Probed(NamedTuple):
    """Whether a broker can be used, and what was found, with what to do next where it cannot."""

    ok: bool
    detail: str


def probe(settings: Settings) -> Probed:
    """Connects as every service does; blocks for some two seconds at most."""
    causes: list[KafkaError] = []
    where = settings.kafka_bootstrap
    try:
        client = admin(settings, log_level=0, error_cb=causes.append)
    except KafkaException as error:
        return Probed(False, f"TAILRACE_KAFKA_CA={settings.kafka_ca} cannot be used: {error.args[0].str()}")
    began, looked = time.monotonic(), False
    while time.monotonic() < began + ANSWER_S:
        client.poll(0.05)
        if not looked and time.monotonic() > began + SILENT_S:
            # Of a listener that only hangs up on it, the client says nothing for seconds.
            looked = True
            seen = _handshake(settings)
            if seen:
                return Probed(False, seen)
        telling = [cause for cause in causes if cause.code() != KafkaError._ALL_BROKERS_DOWN]
        if telling:
            return Probed(False, _cause(telling[0], settings))
        try:
            found = client.list_topics(timeout=0.2)
            return Probed(True, f"{len(found.brokers)} broker(s) at {where}, {len(found.topics)} topics")
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                return Probed(False, _cause(error.args[0], settings))
    sasl = "" if settings.kafka_username else " (does it want a user?)"
    return Probed(
        False,
        f"{where} accepts connections but gives no answer in {settings.kafka_security}; check "
        f"TAILRACE_KAFKA_SECURITY{sasl} and that the port is Kafka's",
    )


def _cause(error: KafkaError, settings: Settings) -> str:
    where, security = settings.kafka_bootstrap, settings.kafka_security
    if "supported mechanisms" in error.str():
        return f"the listener at {where} does not speak SCRAM-SHA-512; give it that mechanism, or take another listener: {error.str()}"
    # Before the handshake: what the client calls a failed login is one, once a listener of another kind is ruled out.
    seen = _handshake(settings)
    if seen:
        return seen
    if error.code() == KafkaError._AUTHENTICATION:
        return (
            f"wrong user or password for {settings.kafka_username!r} at {where}; check TAILRACE_KAFKA_USERNAME and "
            "TAILRACE_KAFKA_PASSWORD, and that the user exists"
        )
    if error.code() == KafkaError._TRANSPORT:
        sasl = "" if settings.kafka_username else " (does it want a user?)"
        return f"the listener at {where} does not speak {security}; check TAILRACE_KAFKA_SECURITY{sasl} and the port"
    return f"{where}: {error.str()}"


def _handshake(settings: Settings) -> str:
    """What connections of our own find wrong before Kafka's protocol begins; "" when any address is in order."""
    causes = []
    for where in settings.kafka_bootstrap.split(","):
        causes.append(_handshake_with(where.strip(), settings))
        if not causes[-1]:
            return ""
    return causes[0]


def _handshake_with(where: str, settings: Settings) -> str:
    tls = settings.kafka_security.endswith("SSL")
    host, _, port = where.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=HANDSHAKE_S) as plain:
            return _tls_cause(plain, where, settings) if tls else _plain_cause(plain, where, settings)
    except ValueError:
        return f"{where!r} is no address; write host:port in TAILRACE_KAFKA_BOOTSTRAP"
    except socket.gaierror:
        return f"the host of {where} is unknown; check TAILRACE_KAFKA_BOOTSTRAP"
    except TimeoutError:
        return f"{where} does not answer at all; check host and port in TAILRACE_KAFKA_BOOTSTRAP, and firewalls"
    except ConnectionRefusedError:
        return f"nobody listens at {where}; check host and port, or start one: `tailrace up`"
    except OSError as error:
        return f"{where} cannot be reached: {error}"


def _plain_cause(plain: socket.socket, where: str, settings: Settings) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only asked whether it speaks TLS
    with contextlib.suppress(OSError), context.wrap_socket(plain):
        wanted = "SASL_SSL" if settings.kafka_username else "SASL_SSL, or SSL where there are no users"
        return (
            f"the listener at {where} speaks TLS and does not speak {settings.kafka_security}; "
            f"set TAILRACE_KAFKA_SECURITY to {wanted}, or take the port of another listener"
        )
    return ""


def _tls_cause(plain: socket.socket, where: str, settings: Settings) -> str:
    host, trusted = where.rpartition(":")[0], f"the authorities of {settings.kafka_ca or 'this system'}"
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca or None)
    except OSError as error:
        return f"TAILRACE_KAFKA_CA={settings.kafka_ca} holds no certificate in PEM form: {error}"
    try:
        with context.wrap_socket(plain, server_hostname=host):
            return ""
    except ssl.SSLCertVerificationError as error:
        match error.verify_code:
            case code if code in (_OTHER_HOST, _OTHER_ADDRESS):
                return f"the certificate of {where} is for another host than {host!r}; use a name that it holds: {error.verify_message}"
            case code if code in (_EXPIRED, _NOT_YET_VALID):
                return f"the certificate of {where} is not valid now; renew it, or check this machine's clock: {error.verify_message}"
            case _:
                return (
                    f"the certificate of {where} cannot be verified: {trusted} vouch for none like it; "
                    f"set TAILRACE_KAFKA_CA to the file of the broker's authority: {error.verify_message}"
                )
    except TimeoutError:
        return ""
    except OSError:
        # It hung up, or answered with something that is no TLS.
        return f"the listener at {where} does not speak {settings.kafka_security}: there is no TLS; check TAILRACE_KAFKA_SECURITY and the port"
