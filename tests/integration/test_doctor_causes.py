"""`tailrace doctor` on a secured broker and a secured Redis: every cause by its name."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AclBindingFilter
from pydantic import SecretStr

from tailrace.backends import access, topics
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import admin
from tailrace.backends.ports import ReadRequest
from tailrace.backends.settings import Settings
from tailrace.contracts.access import Grant
from tailrace.local.broker import Broker
from tailrace.local.broker_security import BrokerSecurity, add_users
from tailrace.local.doctor import Finding, examine
from tailrace.local.online_store import OnlineStoreServer
from tailrace.local.processes import free_port
from tailrace.usecase.load import load_use_case

USE_CASE = "fraud_handbook"
PREFIX = "doctor-"
PASSWORD = "right"


@pytest.fixture(scope="module")
def healthy(secured_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of inference with all of its rights."""
    folder = tmp_path_factory.mktemp("use_cases")
    (folder / USE_CASE).symlink_to(Path("feature_repo").resolve() / USE_CASE)
    places = {"use_cases": folder, "state_dir": folder, "redis_url": f"redis://127.0.0.1:{free_port()}/0"}
    administrator = secured_broker.connect(Settings(partitions=1)).model_copy(update=places)
    use_case = load_use_case(folder, USE_CASE)
    topics.apply(administrator, use_case)
    add_users(administrator, {f"{PREFIX}inference": PASSWORD, f"{PREFIX}trainer": PASSWORD})
    access.apply(administrator, [access.streams_of(use_case)], PREFIX)
    assert secured_broker.security is not None
    return secured_broker.security.user(administrator, f"{PREFIX}inference", PASSWORD)


def _kafka(settings: Settings, **changes: object) -> Finding:
    found = {finding.subject: finding for finding in examine(settings.model_copy(update=changes))}
    return found["kafka"]


def _store(settings: Settings, **changes: object) -> Finding:
    found = {finding.subject: finding for finding in examine(settings.model_copy(update=changes))}
    return found["online store"]


def test_settings_in_order_are_in_order(healthy: Settings) -> None:
    found = {finding.subject: finding for finding in examine(healthy)}
    assert found["kafka"].ok
    assert found[f"permissions of {PREFIX}inference on {USE_CASE}"] == Finding(
        f"permissions of {PREFIX}inference on {USE_CASE}", True, "all that inference needs"
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"kafka_password": SecretStr("wrong")}, "wrong user or password for 'doctor-inference'"),
        ({"kafka_username": "nobody"}, "wrong user or password for 'nobody'"),
        ({"kafka_bootstrap": "no-such-host.invalid:9092"}, "the host of no-such-host.invalid:9092 is unknown"),
        ({"kafka_bootstrap": "no-port"}, "'no-port' is no address"),
        ({"kafka_security": "PLAINTEXT"}, "speaks TLS and does not speak PLAINTEXT; set TAILRACE_KAFKA_SECURITY to SASL_SSL"),
        ({"kafka_security": "SASL_PLAINTEXT"}, "speaks TLS and does not speak SASL_PLAINTEXT"),
        ({"kafka_security": "SSL", "kafka_username": ""}, "check TAILRACE_KAFKA_SECURITY (does it want a user?)"),
        ({"kafka_ca": ""}, "set TAILRACE_KAFKA_CA to the file of the broker's authority"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_cause_is_named(healthy: Settings, changes: dict[str, object], cause: str) -> None:
    found = _kafka(healthy, **changes)
    assert not found.ok
    assert cause in found.detail


def test_port_where_nobody_listens_is_named(healthy: Settings) -> None:
    where = f"127.0.0.1:{free_port()}"
    assert f"nobody listens at {where}" in _kafka(healthy, kafka_bootstrap=where).detail


def test_certificate_of_another_authority_is_told_from_a_damaged_file(healthy: Settings, tmp_path: Path) -> None:
    other = BrokerSecurity(tmp_path)
    other.prepare()
    found = _kafka(healthy, kafka_ca=str(other.ca))
    assert f"the authorities of {other.ca} vouch for none like it" in found.detail
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("no certificate")
    assert f"TAILRACE_KAFKA_CA={damaged} cannot be used" in _kafka(healthy, kafka_ca=str(damaged)).detail


def test_name_that_the_certificate_does_not_hold_is_named(healthy: Settings) -> None:
    where = healthy.kafka_bootstrap.replace("127.0.0.1", "127.0.0.2")
    port = int(where.rpartition(":")[2])
    with _Forwarded("127.0.0.2", port):
        found = _kafka(healthy, kafka_bootstrap=where)
    assert f"the certificate of {where} is for another host than '127.0.0.2'" in found.detail


def test_tls_to_a_listener_without_it_is_named(healthy: Settings, broker: str) -> None:
    found = _kafka(healthy, kafka_bootstrap=broker)
    assert f"the listener at {broker} does not speak SASL_SSL: there is no TLS" in found.detail


def test_missing_rights_are_printed_as_the_acls_to_add(healthy: Settings, secured_broker: Broker) -> None:
    use_case = load_use_case(healthy.use_cases, USE_CASE)
    wanted = access.UserGrant(f"{PREFIX}inference", Grant("topic", f"{USE_CASE}.predictions", "WRITE"))
    administrator = secured_broker.connect(healthy)
    _take_away(administrator, wanted)
    found = _as_a_command(healthy)
    access.apply(administrator, [access.streams_of(use_case)], PREFIX)
    assert found.returncode == 78, found.stderr
    detail = next(f["detail"] for f in json.loads(found.stdout) if f["subject"].startswith("permissions of"))
    assert detail.startswith(f"missing: WRITE on topic {USE_CASE}.predictions; ")
    assert (
        "kafka-acls.sh --add --allow-principal User:doctor-inference --operation Write --topic fraud_handbook.predictions"
        in detail
    )
    assert "labels" not in detail


def test_every_right_of_another_service_is_missing(healthy: Settings) -> None:
    found = {finding.subject: finding for finding in examine(healthy, "rollout")}
    detail = found[f"permissions of {PREFIX}inference on {USE_CASE}"].detail
    assert f"READ on group tailrace.{USE_CASE}.rollout" in detail
    assert f"--transactional-id tailrace.{USE_CASE}.rollout --resource-pattern-type prefixed" in detail
    assert f"READ on topic {USE_CASE}.control" not in detail  # inference reads it too


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStoreServer]:
    """A Redis with one user, who may read."""
    server = OnlineStoreServer(tmp_path_factory.mktemp("store"))
    server.start()
    administrator = redis.Redis.from_url(server.url)
    administrator.execute_command(
        "ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "-@all", "+@connection", "+hmget"
    )
    administrator.execute_command("ACL", "SETUSER", "blind", "on", f">{PASSWORD}", "-@all", "+@connection")
    administrator.execute_command("ACL", "SETUSER", "default", "off")
    yield server
    server.stop()


def test_user_of_the_online_store_who_may_only_read_is_in_order(healthy: Settings, store: OnlineStoreServer) -> None:
    found = _store(healthy, redis_url=store.url, redis_username="reader", redis_password=SecretStr(PASSWORD))
    assert found == Finding("online store", True, f"Redis at {store.url}")


@pytest.mark.parametrize(
    ("user", "password", "cause"),
    [
        ("reader", "wrong", "wrong user or password"),
        ("nobody", PASSWORD, "wrong user or password"),
        ("", "", "wrong user or password"),
        ("blind", PASSWORD, "but without the right"),
    ],
)
def test_cause_at_the_online_store_is_named(
    healthy: Settings, store: OnlineStoreServer, user: str, password: str, cause: str
) -> None:
    found = _store(healthy, redis_url=store.url, redis_username=user, redis_password=SecretStr(password))
    assert not found.ok
    assert cause in found.detail


def test_unknown_host_and_closed_port_of_the_online_store_are_told_apart(healthy: Settings) -> None:
    assert (
        "the host of redis://no-such-host.invalid:6379/0 is unknown"
        in _store(healthy, redis_url="redis://no-such-host.invalid:6379/0").detail
    )
    assert "nobody listens at" in _store(healthy).detail


def test_online_store_behind_tls_is_used_with_its_authority_and_named_without(
    healthy: Settings, store: OnlineStoreServer, tmp_path: Path
) -> None:
    security = BrokerSecurity(tmp_path)
    security.prepare()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(security.directory / "broker.pem")
    user = {"redis_username": "reader", "redis_password": SecretStr(PASSWORD)}
    with _Forwarded("127.0.0.1", store.port, context) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        trusting = healthy.model_copy(update=user | {"redis_url": url, "redis_ca": str(security.ca)})
        assert _store(trusting).ok
        rows = RedisOnlineStore(trusting).read([ReadRequest("view", "entity", ["column"], ["key"])])
        assert [row.timestamps_ms.tolist() for row in rows] == [[-1]]
        assert "set TAILRACE_REDIS_CA to its authority" in _store(healthy, redis_url=url, **user).detail
        plain = _store(healthy, redis_url=url.replace("rediss", "redis"), **user)
        assert "check redis:// and rediss://" in plain.detail
    tls = _store(healthy, redis_url=store.url.replace("redis", "rediss"), redis_ca=str(security.ca), **user)
    assert "redis:// and rediss://" in tls.detail


class _Forwarded:
    """Forwards connections to a port of 127.0.0.1 while it is entered, behind TLS if a context is given."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._context = context
        # Without TLS another address is enough, and the certificate's port stays.
        self._listener = socket.create_server((host, 0 if context else port))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(inner,), daemon=True).start()

    def _join(self, inner: socket.socket) -> None:
        try:
            if self._context is not None:
                inner = self._context.wrap_socket(inner, server_side=True)
            outer = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            inner.close()
            return
        threading.Thread(target=_pump, args=(outer, inner), daemon=True).start()
        _pump(inner, outer)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        sink.close()


def _take_away(settings: Settings, right: access.UserGrant) -> None:
    acl = access.binding(right)
    same = AclBindingFilter(
        acl.restype, acl.name, acl.resource_pattern_type, acl.principal, None, acl.operation, acl.permission_type
    )
    client = admin(settings)
    for answer in client.delete_acls([same]).values():
        assert len(answer.result()) == 1


def _as_a_command(settings: Settings) -> subprocess.CompletedProcess[str]:
    values = settings.model_dump() | {"kafka_password": PASSWORD, "redis_password": ""}
    environment = {f"TAILRACE_{name.upper()}": str(value) for name, value in values.items()}
    return subprocess.run(
        [sys.executable, "-m", "tailrace", "doctor", "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
