"""The running system under a real Prometheus: scraped, watched, broken on purpose, and mended."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tailrace.backends.kafka import producer
from tailrace.backends.recordings import Recording, to_recording
from tailrace.backends.settings import Settings
from tailrace.contracts.metrics import METRICS, STAGES
from tailrace.local.dashboard import ROWS
from tailrace.local.processes import Child, free_port, spawn
from tailrace.local.replay import Replay
from tailrace.local.supervisor import Embedded
from tailrace.local.system_state import read_state
from tailrace.testing.streams import DAY_MS, START_MS, CardFraudStream
from tailrace.usecase.load import load_use_case

K8S = Path(__file__).parents[2] / "k8s"
USE_CASE = "card_fraud"
REPLAYED_MS = START_MS + 10 * DAY_MS
EVENTS_PER_S = 100
EMPTY_IN_ORDER = {
    "Dead letters": "shows reasons that occur, and a healthy system has none",
    "Events forgotten before their time": "shows what occurs, and a healthy system has room",
    "Outcomes that repeat or contradict what is known": "shows what occurs, and these outcomes come once",
}

pytestmark = pytest.mark.timeout(240)


def quickened(rules: str) -> str:
    """The rules with a minute become a second, in ranges and in `for`; nothing else changes."""

    def faster(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * {"m": 1, "h": 60, "d": 1440}[found["unit"]]
        return f"{found['before']}{seconds}s{found['after']}"

    return re.sub(
        r"(?P<before>\[|for: )(?P<count>\d+)(?P<unit>[mhd])(?P<after>\]|$)", faster, rules, flags=re.MULTILINE
    )


class Prometheus:
    """A server with the configuration and the rules of k8s/, on this machine's addresses and sixty times faster."""

    def __init__(self, binaries: Path, directory: Path, targets: dict[str, str]) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        config = yaml.safe_load((K8S / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        (directory / "alerts").mkdir(parents=True)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        (directory / "alerts" / "rules.yaml").write_text(quickened((K8S / "alerts" / "rules.yaml").read_text()))
        options = {
            "config.file": directory / "prometheus.yml",
            "storage.tsdb.path": directory / "data",
            "web.listen-address": self._address,
        }
        command = [str(binaries / "prometheus"), *(f"--{name}={value}" for name, value in options.items())]
        self.child: Child = spawn("prometheus", command, directory / "prometheus.log")
        eventually(self._answers, "Prometheus answers")

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        samples = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [sample for sample in samples if not math.isnan(sample)]

    def firing(self) -> dict[str, str]:
        """Summaries of the alerts that fire, one a line, by name."""
        found: dict[str, str] = {}
        for alert in self.get("alerts")["alerts"]:
            if alert["state"] == "firing":
                name = alert["labels"]["alertname"]
                found[name] = found.get(name, "") + alert["annotations"]["summary"] + "\n"
        return found

    def _answers(self) -> bool:
        try:
            return bool(self.get("status/buildinfo"))
        except OSError:
            return False


class Traffic(threading.Thread):
    """Sends events at a steady rate until told to pause; while `spoil` is set, every second one is no JSON."""

    def __init__(self, settings: Settings, events: Recording) -> None:
        super().__init__(name="traffic", daemon=True)
        self.running = threading.Event()
        self.spoil = threading.Event()
        self.ended = threading.Event()
        self._topic = events.topic.name
        self._records = events.encoded(events.between(REPLAYED_MS, REPLAYED_MS + 100 * DAY_MS))
        self._producer = producer(settings)

    def run(self) -> None:
        due_s = time.monotonic()
        for key, value in self._records:
            due_s = max(due_s + 1 / EVENTS_PER_S, time.monotonic() - 1)
            if self.ended.wait(max(0.0, due_s - time.monotonic())):
                return
            while not self.running.wait(0.1):
                if self.ended.is_set():
                    return
            self._producer.produce(self._topic, value, key)
            if self.spoil.is_set():
                self._producer.produce(self._topic, value[:-1], key)
            self._producer.poll(0)


class Live:
    """Everything that runs."""

    def __init__(self, embedded: Embedded, prometheus: Prometheus, traffic: Traffic) -> None:
        self.embedded = embedded
        self.prometheus = prometheus
        self.traffic = traffic

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stops a process in its tracks for a while; the supervisor sees it run."""
        state = read_state(self.embedded.directory)
        assert state is not None
        pid = next(process.pid for process in state.processes if process.name == name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def fired(self, *names: str, within_s: float) -> dict[str, str]:
        eventually(lambda: set(names) <= set(self.prometheus.firing()), f"{names} fire", within_s)
        return self.prometheus.firing()

    def resolved(self, *names: str, within_s: float) -> None:
        eventually(lambda: not set(names) & set(self.prometheus.firing()), f"{names} are resolved", within_s)


def eventually(holds: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def live(broker: str, prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The embedded system with a champion that has served for days, under Prometheus and live traffic."""
    directory = tmp_path_factory.mktemp("live")
    source = Path("feature_repo") / USE_CASE / "usecase.py"
    declared = directory / "feature_repo" / USE_CASE / "usecase.py"
    declared.parent.mkdir(parents=True)
    declared.write_text(
        source.read_text().replace('train="torch"', 'train="boosting"')
    )  # seconds to train, not half a minute
    use_case = load_use_case(directory / "feature_repo", USE_CASE)
    events, outcomes = CardFraudStream(seed=3, days=25, drift_day=25, per_day=900).tables()
    requests = to_recording(events, use_case.requests)
    system = Embedded(directory / "system", settings=Settings(use_cases=directory / "feature_repo"))
    system.start([USE_CASE])
    targets = {name.removeprefix(f"{USE_CASE}."): address for name, address in system.probes().items()}
    prometheus = Prometheus(prometheus_bin, directory / "prometheus", targets)
    traffic = Traffic(system.settings, requests)
    try:
        replay = Replay(
            system.settings, use_case, requests, to_recording(outcomes, use_case.label.topic), keep_going=system.check
        )
        replay.play(DAY_MS, until_ms=REPLAYED_MS)
        replay.close()
        traffic.running.set()
        traffic.start()
        yield Live(system, prometheus, traffic)
    finally:
        traffic.ended.set()
        prometheus.child.stop(10)
        system.stop()


def test_every_service_says_that_it_lives_and_is_ready(live: Live) -> None:
    addresses = live.embedded.probes().values()
    assert len(STAGES) == len(addresses)
    for address in addresses:
        for probe in ("livez", "readyz"):
            with urllib.request.urlopen(f"http://{address}/{probe}", timeout=10) as answer:
                assert answer.read() == b"ok\n"


def test_all_targets_are_up_and_all_rules_healthy(live: Live) -> None:
    def targets() -> dict[str, str]:
        return {at["labels"]["job"]: at["health"] for at in live.prometheus.get("targets")["activeTargets"]}

    eventually(lambda: targets() == dict.fromkeys(STAGES, "up"), "six targets are up")
    rules = [rule for group in live.prometheus.get("rules")["groups"] for rule in group["rules"]]
    committed = yaml.safe_load((K8S / "alerts" / "rules.yaml").read_text())["groups"]
    assert len(rules) == sum(len(group["rules"]) for group in committed)
    eventually(
        lambda: {r["health"] for g in live.prometheus.get("rules")["groups"] for r in g["rules"]} == {"ok"},
        "every rule was evaluated without error",
    )


def test_what_is_exported_has_no_name_and_no_value_of_a_closed_label_that_the_table_lacks(live: Live) -> None:
    suffixes = ("", "_bucket", "_sum", "_count")
    specs = {
        spec.name + (suffix if spec.kind == "histogram" else ""): spec
        for spec in METRICS.values()
        for suffix in suffixes
    }
    series = live.prometheus.get("series", **{"match[]": '{__name__=~"tailrace_.+"}'})
    assert len(series) > len(METRICS)
    for labels in series:
        spec = specs[labels["__name__"]]
        assert labels["stage"] in spec.stages
        for label in spec.labels:
            assert not label.values or labels[label.name] in label.values, labels


def test_every_query_of_the_dashboard_returns_data(live: Live) -> None:
    queries = {
        (panel.title, query.expr.replace("$use_case", ".*"))
        for panels in ROWS.values()
        for panel in panels
        for query in panel.queries
        if panel.title not in EMPTY_IN_ORDER
    }

    def empty() -> set[tuple[str, str]]:
        return {(title, expr) for title, expr in queries if not live.prometheus.values(expr.replace("[5m]", "[10s]"))}

    deadline = time.monotonic() + 30
    while (without := empty()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert without == set()


def test_a_service_and_a_store_that_hang_are_told_and_told_to_be_well_again(live: Live) -> None:
    with live.frozen(f"{USE_CASE}.inference"):
        with live.frozen("redis"):
            fired = live.fired("TailraceOnlineStoreErrors", "TailraceNotReady", within_s=45)
            assert re.search(r"\d+ calls of features of card_fraud to write", fired["TailraceOnlineStoreErrors"])
            assert "features of card_fraud has not been ready" in fired["TailraceNotReady"]
        fired = live.fired("TailraceServiceDown", "TailraceLag", within_s=75)
        assert re.search(r"^inference at 127.0.0.1:\d+ has not answered", fired["TailraceServiceDown"], re.MULTILINE)
        assert re.search(
            r"that inference of card_fraud has not dealt with is (\d+m )?\d+(\.\d+)?s old", fired["TailraceLag"]
        )
    live.resolved("TailraceServiceDown", "TailraceLag", "TailraceOnlineStoreErrors", "TailraceNotReady", within_s=60)


def test_a_store_that_refuses_reads_degrades_predictions_until_it_is_mended(live: Live) -> None:
    client = redis.Redis.from_url(live.embedded.online_store.url)
    client.execute_command("ACL", "SETUSER", "default", "-hmget")  # type: ignore[no-untyped-call]  # untyped library
    try:
        fired = live.fired("TailraceDegradedShare", within_s=45)
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]  # untyped library
        client.close()
    assert re.search(r"\d+% of the predictions of card_fraud use defaults", fired["TailraceDegradedShare"])
    live.resolved("TailraceDegradedShare", within_s=75)


def test_a_burst_of_malformed_events_is_told_and_told_to_be_over(live: Live) -> None:
    live.traffic.spoil.set()
    try:
        fired = live.fired("TailraceDeadLetterShare", within_s=45)
    finally:
        live.traffic.spoil.clear()
    assert re.search(r"\d+% of the events of card_fraud end as dead letters", fired["TailraceDeadLetterShare"])
    live.resolved("TailraceDeadLetterShare", within_s=45)


def test_silence_of_the_producers_is_told_and_told_to_be_over(live: Live) -> None:
    live.traffic.running.clear()
    try:
        fired = live.fired("TailraceNoData", within_s=60)
    finally:
        live.traffic.running.set()
    assert "card_fraud has received 0 events" in fired["TailraceNoData"]
    live.resolved("TailraceNoData", within_s=45)
