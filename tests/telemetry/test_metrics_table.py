from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
import yaml
from prometheus_client import Counter, Gauge, Histogram

from tailrace.backends.telemetry import Metrics
from tailrace.cli import app
from tailrace.contracts.metrics import CONSTANT_LABELS, DEAD_LETTER_REASONS, METRICS, STAGES, Kind, metrics_page
from tailrace.local.dashboard import ROWS, dashboard_json

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "services" / "tailrace"
RULES: dict[str, Any] = yaml.safe_load((ROOT / "k8s" / "alerts" / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDS = {rule["record"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
QUERIES = [query.expr for panels in ROWS.values() for panel in panels for query in panel.queries]
EXPRESSIONS = [*RECORDS.values(), *(rule["expr"] for rule in ALERTS), *QUERIES]


def test_the_page_of_metrics_is_what_the_table_says() -> None:
    assert metrics_page() == (ROOT / "docs" / "metrics.md").read_text(), (
        "run `tailrace telemetry` and commit the result"
    )


def test_the_dashboard_is_what_the_module_builds() -> None:
    committed = (ROOT / "k8s" / "dashboards" / "tailrace.json").read_text()
    assert dashboard_json() == committed, "run `tailrace telemetry` and commit the result"


def test_every_entry_of_the_table_has_a_handle_of_its_kind() -> None:
    classes: dict[type, Kind] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    handles = {name: classes[hint] for name, hint in get_type_hints(Metrics).items()}
    assert {name: spec.kind for name, spec in METRICS.items()} == handles


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [spec.name for spec in METRICS.values()]
    assert len(set(names)) == len(names)
    for spec in METRICS.values():
        assert re.fullmatch(r"tailrace_[a-z_]+", spec.name)
        assert (spec.kind == "counter") == spec.name.endswith("_total"), spec.name
        assert (spec.unit == "seconds") == bool(re.search(r"_seconds(_total)?$", spec.name)), spec.name
        assert (spec.kind == "histogram") == bool(spec.buckets), spec.name


def test_labels_are_bounded_and_never_an_id() -> None:
    for spec in METRICS.values():
        for label in spec.labels:
            assert label.values or label.bound, (spec.name, label.name)
            assert not re.search(r"(^|_)(id|key)$", label.name), spec.name


@pytest.mark.parametrize("stage", STAGES)
def test_a_service_exports_what_it_speaks_of_and_nothing_else(stage: str) -> None:
    exported = {m.name for m in Metrics("shop", stage).registry.collect() if m.name.startswith("tailrace_")}
    assert {spec.name.removesuffix("_total") for spec in METRICS.values() if stage in spec.stages} == exported


def test_every_sample_names_its_use_case_and_service() -> None:
    metrics = Metrics("shop", "inference")
    metrics.end_to_end_seconds.observe(0.1)
    samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    assert {("shop", "inference")} == {(s.labels["use_case"], s.labels["stage"]) for s in samples}
    assert all(sample.name.startswith(("tailrace_", "process_")) for sample in samples)


def test_a_counter_of_closed_labels_begins_at_zero_and_a_gauge_without_data_is_no_number() -> None:
    value = Metrics("shop", "feedback").registry.get_sample_value
    assert {0.0} == {value("tailrace_dead_letters_total", {"reason": reason}) for reason in DEAD_LETTER_REASONS}
    assert math.isnan(value("tailrace_watermark_timestamp_seconds") or 0.0)
    assert value("tailrace_quality", {"metric": "log_loss", "variant": "champion"}) is None


def test_every_reason_in_the_code_stands_in_the_table() -> None:
    reasons = set()
    for file in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "BadRecord":
                reasons |= {n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)}
    assert reasons
    assert reasons <= set(DEAD_LETTER_REASONS)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_rules_and_dashboard_name_metrics_and_labels_that_exist(expression: str) -> None:
    known: dict[str, set[str]] = {"process_start_time_seconds": set(), "process_resident_memory_bytes": set()}
    known |= {"process_cpu_seconds_total": set()}
    known |= {spec.name: {label.name for label in spec.labels} for spec in METRICS.values()}
    known |= {
        f"{spec.name}_bucket": {"le"} | {label.name for label in spec.labels}
        for spec in METRICS.values()
        if spec.kind == "histogram"
    }
    for name, matchers in re.findall(r"(?<![\w:])((?:tailrace|process)_\w+)(?:\{([^}]*)\})?", expression):
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=|!)", matchers)) <= known[name] | set(CONSTANT_LABELS)
    for name in re.findall(r"\w+:\w+:\w+", expression):
        assert name in RECORDS


def test_every_metric_is_watched_or_shown_or_there_for_inspection() -> None:
    inspected = {
        "build_info",
        "produced",
        "duplicates",
        "labels",
        "open_predictions",
        "tasks_left_out",
        "model_failures",
        "quality_end",
    }
    inspected |= {"alarms", "training_seconds", "drift_limit"}
    unused = {handle for handle, spec in METRICS.items() if not any(spec.name in e for e in EXPRESSIONS)}
    assert inspected == unused


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_a_value_and_a_paragraph_of_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert "$value" in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert f"\n## {rule['alert']}\n" in RUNBOOK


def test_the_runbook_speaks_of_alerts_and_commands_that_exist() -> None:
    assert [rule["alert"] for rule in ALERTS] == re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    root = typer.main.get_command(app)
    for words in re.findall(r"`tailrace ([a-z\- ]+)", RUNBOOK):
        command: Any = root
        for word in words.split(" --")[0].split():
            assert word in command.commands, words
            command = command.commands[word]


def test_prometheus_scrapes_the_six_services_and_loads_the_rules() -> None:
    config = yaml.safe_load((ROOT / "k8s" / "prometheus.yml").read_text())
    assert list(STAGES) == [job["job_name"] for job in config["scrape_configs"]]
    assert ["alerts/rules.yaml"] == config["rule_files"]
