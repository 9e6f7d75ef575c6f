"""Every alert, by promtool: quiet before its fault, firing while it stands, resolved when it is mended."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[2] / "k8s" / "alerts" / "rules.yaml"
CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())


def test_prometheus_accepts_the_rules(prometheus_bin: Path) -> None:
    _promtool(prometheus_bin, "check", "rules", str(RULES))


def test_every_alert_has_a_case() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule} == {
        case["alert"] for case in CASES
    }


def test_every_alert_fires_on_its_fault_and_resolves_when_it_is_mended(prometheus_bin: Path, tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{case["alert"]}", alertstate="firing"}})',
                    "eval_time": case[moment],
                    "exp_samples": [{"labels": "{}", "value": 1}] if moment == "fires" else [],
                }
                for moment in ("quiet", "fires", "resolved")
            ],
        }
        for case in CASES
    ]
    file = tmp_path / "rules_test.yaml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(document, width=1_000))
    _promtool(prometheus_bin, "test", "rules", str(file))


def _promtool(prometheus_bin: Path, *words: str) -> None:
    done = subprocess.run([prometheus_bin / "promtool", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
