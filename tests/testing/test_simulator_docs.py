"""What docs/simulator.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from tailrace.testing import faults, simulation
from tailrace.testing.scenario import Scenario

TEXT = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_pytest_example_passes(tmp_path: Path) -> None:
    (example,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(example, "docs/simulator.md", "exec"), names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test(tmp_path)


def test_the_scenario_is_one() -> None:
    (text,) = blocks("yaml")
    scenario = msgspec.yaml.decode(text, type=Scenario)
    scenario.check()
    assert (2, 3) == (len(scenario.faults), len(scenario.expect))


def test_every_fault_and_assertion_of_the_tables_exists_and_none_is_left_out() -> None:
    shown = re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE)
    kinds = {kind.__name__ for kind in faults.AnyFault.__args__}
    methods = {name for name in shown if hasattr(simulation.Simulation, name)}
    assert kinds | methods == set(shown)
    assert kinds <= set(shown)
    assert {"detects", "never_promotes", "recovers", "retrains"} <= methods


def test_faults_of_the_table_are_written_as_they_can_be() -> None:
    for call in re.findall(r"`([A-Z]\w+\(.*?\))`", TEXT):
        fault = eval(call, vars(faults))
        faults.check([fault], 0)
