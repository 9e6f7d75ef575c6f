"""`tailrace doctor`: one line per cause, each within a second or so."""

from __future__ import annotations

import time
from typing import NamedTuple

import psutil
import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from tailrace.backends.kafka import client_options
from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError, UseCaseError
from tailrace.local.broker import NEEDED_MB, java_program
from tailrace.usecase.load import load_use_case, use_case_names

PROBE_S = 2.0
NEEDED_DISK_MB = 2_000


class Finding(NamedTuple):
    """What was found of one subject, with what to do next when it is not in order."""

    subject: str
    ok: bool
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """Examines everything the services need."""
    return [_kafka(settings), _redis(settings), _java(), _disk(settings), _memory(), *_use_cases(settings)]


def _kafka(settings: Settings) -> Finding:
    # The client hides the cause behind a time-out; it is told to the error callback within half a second.
    causes: list[KafkaError] = []
    where = settings.kafka_bootstrap
    client = AdminClient(client_options(settings) | {"log_level": 0}, error_cb=causes.append)
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        client.poll(0.05)
        telling = [cause for cause in causes if cause.code() != KafkaError._ALL_BROKERS_DOWN]
        if telling:
            return Finding("kafka", False, _kafka_cause(telling[0], settings))
        try:
            found = client.list_topics(timeout=0.2)
            return Finding("kafka", True, f"{len(found.brokers)} broker(s) at {where}, {len(found.topics)} topics")
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                return Finding("kafka", False, _kafka_cause(error.args[0], settings))
    return Finding(
        "kafka",
        False,
        f"{where} accepts connections but gives no answer in {settings.kafka_security}; check TAILRACE_KAFKA_SECURITY "
        "and that the port is Kafka's",
    )


def _kafka_cause(error: KafkaError, settings: Settings) -> str:
    where, code, text = settings.kafka_bootstrap, error.code(), error.str()
    # Tested before the codes: the client gives a listener of another kind the code of a wrong password or host.
    refused = code == KafkaError._TRANSPORT and "Connect to" in text
    if "supported mechanisms" in text or (code == KafkaError._TRANSPORT and not refused):
        return f"the listener at {where} does not speak {settings.kafka_security}; check TAILRACE_KAFKA_SECURITY and the port"
    if code == KafkaError._AUTHENTICATION:
        return f"wrong user or password for {settings.kafka_username!r} at {where}; check TAILRACE_KAFKA_USERNAME and …_PASSWORD"
    if code == KafkaError._RESOLVE:
        return f"the host of {where} is unknown; check TAILRACE_KAFKA_BOOTSTRAP"
    if code == KafkaError._SSL or "certificate" in text.lower():
        return f"the certificate of {where} cannot be verified; check TAILRACE_KAFKA_CA: {text}"
    if refused:
        return f"nobody listens at {where}; check host and port, or start one: `tailrace up`"
    return f"{where}: {text}"


def _redis(settings: Settings) -> Finding:
    client = redis.Redis.from_url(
        settings.redis_url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        version = client.info("server")["redis_version"]  # type: ignore[index]  # the client is typed for both modes
        return Finding("online store", True, f"Redis {version}")
    except redis.AuthenticationError as error:
        return Finding("online store", False, f"wrong user or password; check TAILRACE_REDIS_URL: {error}")
    except redis.RedisError as error:
        return Finding("online store", False, f"{error}; check TAILRACE_REDIS_URL, or start one: `tailrace up`")
    finally:
        client.close()


def _java() -> Finding:
    try:
        return Finding("java", True, java_program())
    except ConfigError as error:
        return Finding("java", False, f"{error}; only `tailrace up` needs it")


def _disk(settings: Settings) -> Finding:
    place = settings.state_dir.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free_mb = psutil.disk_usage(str(place)).free // 2**20
    detail = f"{free_mb} MB free at {place}"
    if free_mb < NEEDED_DISK_MB:
        return Finding(
            "disk", False, f"{detail}, {NEEDED_DISK_MB} MB are needed; set TAILRACE_STATE_DIR to another disk"
        )
    return Finding("disk", True, detail)


def _memory() -> Finding:
    free_mb = psutil.virtual_memory().available // 2**20
    detail = f"{free_mb} MB available"
    if free_mb < NEEDED_MB:
        return Finding("memory", False, f"{detail}, an embedded Kafka needs {NEEDED_MB} MB; close something")
    return Finding("memory", True, detail)


def _use_cases(settings: Settings) -> list[Finding]:
    try:
        names = use_case_names(settings.use_cases)
    except UseCaseError as error:
        return [Finding("use cases", False, str(error))]
    if not names:
        return [Finding("use cases", False, f"none in {settings.use_cases}; set TAILRACE_USE_CASES to their folder")]
    findings = []
    for name in names:
        try:
            plan = load_use_case(settings.use_cases, name).plan
            findings.append(Finding(f"use case {name}", True, f"{len(plan.order)} features, plan {plan.fingerprint}"))
        except UseCaseError as error:
            findings.append(Finding(f"use case {name}", False, str(error)))
    return findings
