"""`tailrace doctor`: one line per cause, each within a second or so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import psutil
import redis
from redis.exceptions import NoPermissionError

from tailrace.backends.access import command, streams_of
from tailrace.backends.redis import address, client
from tailrace.backends.settings import Settings
from tailrace.contracts.access import Principal
from tailrace.errors import BrokerUnavailable, ConfigError, UseCaseError
from tailrace.local.broker import NEEDED_MB, java_program
from tailrace.local.kafka_probe import probe
from tailrace.local.permissions import missing, principal_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case, use_case_names

NEEDED_DISK_MB = 2_000


class Finding(NamedTuple):
    """What was found of one subject, with what to do next when it is not in order."""

    subject: str
    ok: bool
    detail: str


def examine(settings: Settings, principal: Principal | None = None) -> list[Finding]:
    """Examines everything the services need.

    Args:
        settings: What to examine.
        principal: Row of the access matrix whose rights to look for; None: the one the user's name ends with.
    """
    kafka = _kafka(settings)
    rights = _permissions(settings, principal) if kafka.ok else []
    return [kafka, *rights, _redis(settings), _java(), _disk(settings), _memory(), *_use_cases(settings)]


def _kafka(settings: Settings) -> Finding:
    return Finding("kafka", *probe(settings))


def _permissions(settings: Settings, principal: Principal | None) -> list[Finding]:
    """One finding per use case; none where nobody logs in."""
    user = settings.kafka_username
    principal = principal or principal_of(user)
    if not user:
        return []
    if principal is None:
        detail = f"not looked at: {user!r} ends with no service's name; say whose rights it needs with --as"
        return [Finding("permissions", True, detail)]
    findings = []
    for use_case in _loadable(settings):
        subject = f"permissions of {user} on {use_case.name}"
        try:
            lacking = missing(settings, principal, streams_of(use_case))
        except BrokerUnavailable as error:
            findings.append(Finding(subject, False, str(error)))
            continue
        wrong = [f"{right.grant.operation} on {right.grant.kind} {right.grant.name}" for right in lacking]
        advice = "\n".join(["add with `tailrace access apply`, or one by one:", *map(command, lacking)])
        detail = f"missing: {', '.join(wrong)}; {advice}" if wrong else f"all that {principal} needs"
        findings.append(Finding(subject, not wrong, detail))
    return findings


def _redis(settings: Settings) -> Finding:
    where = address(settings)
    store = client(settings, timeout_s=1)
    try:
        # What inference does for each batch; INFO is a right of its own, which no service needs.
        store.hmget("tailrace", ["doctor"])
        with contextlib.suppress(NoPermissionError):
            version = store.info("server")["redis_version"]  # type: ignore[index]  # the client is typed for both modes
            return Finding("online store", True, f"Redis {version}")
        return Finding("online store", True, f"Redis at {where}")
    except redis.RedisError as error:
        return Finding("online store", False, redis_cause(error, where))
    finally:
        store.close()


def redis_cause(error: redis.RedisError, where: str) -> str:
    """What an error of the online store means, and what to do about it."""
    text = str(error)
    match error:
        case redis.AuthenticationError():
            return (
                f"wrong user or password at {where}; check TAILRACE_REDIS_USERNAME and TAILRACE_REDIS_PASSWORD: {text}"
            )
        case NoPermissionError():
            return (
                f"logged in at {where}, but without the right: {text}; docs/security.md lists what each service needs"
            )
        case redis.ConnectionError() if "Name or service not known" in text or "Temporary failure" in text:
            return f"the host of {where} is unknown; check TAILRACE_REDIS_URL"
        case redis.ConnectionError() if "certificate" in text.lower():
            return f"the certificate of {where} cannot be verified; set TAILRACE_REDIS_CA to its authority: {text}"
        case redis.ConnectionError() if "SSL" in text or "closed" in text.lower() or "reset" in text.lower():
            return f"{where} hangs up: it speaks TLS and the address does not, or the other way; check redis:// and rediss:// in TAILRACE_REDIS_URL: {text}"
        case redis.TimeoutError():
            return f"{where} does not answer; check host and port in TAILRACE_REDIS_URL, redis:// and rediss://, and firewalls"
        case redis.ConnectionError() if "refused" in text:
            return f"nobody listens at {where}; check TAILRACE_REDIS_URL, or start one: `tailrace up`"
        case _:
            return f"{where}: {text}; check TAILRACE_REDIS_URL"


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


def _loadable(settings: Settings) -> Iterator[UseCase]:
    """Use cases in order; `_use_cases` says what is wrong with the others."""
    with contextlib.suppress(UseCaseError):
        for name in use_case_names(settings.use_cases):
            with contextlib.suppress(UseCaseError):
                yield load_use_case(settings.use_cases, name)
