from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from typer.testing import CliRunner

from load_tests import __main__ as command
from load_tests import results
from load_tests.bench import Bench, Unavailable, load_scenario, scenario_names
from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A scenario whose candidates need no server."""
    module = ModuleType("load_tests.scenarios.invented")
    module.__doc__ = "Invented."
    module.__dict__.update(
        CANDIDATES={"tailrace": lambda bench: 100.0, "peer": lambda bench: 25.0, "other": lambda bench: 50.0},
        FLOORS={"peer": 4.0},
    )

    @contextmanager
    def no_servers(directory: Path) -> Iterator[Settings]:
        yield Settings.model_construct()

    monkeypatch.setitem(sys.modules, module.__name__, module)
    for where in ("load_tests.bench.scenario_names", "load_tests.__main__.scenario_names"):
        monkeypatch.setattr(where, lambda: ["invented"])
    monkeypatch.setattr(command, "servers", no_servers)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results.write, "__defaults__", (tmp_path,))
    return module


def test_every_scenario_loads_and_says_what_it_measures() -> None:
    for name in scenario_names():
        scenario = load_scenario(name)
        assert scenario.about, name
        assert scenario.candidates, name


def test_an_unknown_scenario_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="guard"):
        load_scenario("gard")


def test_a_run_that_meets_its_floors_exits_with_0_and_writes_the_result(invented: ModuleType, tmp_path: Path) -> None:
    done = CliRunner().invoke(command.app, ["run", "invented", "--repeat", "2"])
    assert 0 == done.exit_code, done.output
    result = msgspec.json.decode((tmp_path / "invented.json").read_bytes(), type=results.Result)
    assert (2, [25.0, 25.0]) == (result.repeat, result.candidates["peer"].runs)


def test_a_run_below_a_floor_exits_with_1(invented: ModuleType) -> None:
    invented.__dict__["FLOORS"] = {"peer": 4.5}
    assert 1 == CliRunner().invoke(command.app, ["run", "invented", "--repeat", "1"]).exit_code


def test_json_is_the_result_on_one_line(invented: ModuleType) -> None:
    done = CliRunner().invoke(command.app, ["run", "invented", "--repeat", "1", "--json"])
    [line] = done.stdout.splitlines()
    assert 4.0 == msgspec.json.decode(line, type=results.Result).candidates["peer"].ratio


def test_only_runs_ours_beside_what_is_named_and_leaves_the_result_file_alone(
    invented: ModuleType, tmp_path: Path
) -> None:
    done = CliRunner().invoke(command.app, ["run", "invented", "--repeat", "1", "--only", "other", "--json"])
    result = msgspec.json.decode(done.stdout, type=results.Result)
    assert {"tailrace", "other"} == set(result.candidates)
    assert [] == list(tmp_path.iterdir())


def test_only_with_an_unknown_candidate_is_refused(invented: ModuleType) -> None:
    done = CliRunner().invoke(command.app, ["run", "invented", "--only", "pear"])
    assert 2 == done.exit_code


def test_peers_run_only_when_asked_for_and_one_that_is_not_installed_fails_nobody(invented: ModuleType) -> None:
    def absent(bench: Bench) -> float:
        raise Unavailable("not installed")

    invented.__dict__.update(PEERS={"framework": absent}, FLOORS={"framework": 30.0})
    ran = {}
    for options in ([], ["--peers"]):
        done = CliRunner().invoke(command.app, ["run", "invented", "--repeat", "1", "--json", *options])
        assert 0 == done.exit_code, done.output
        ran[len(options)] = msgspec.json.decode(done.stdout, type=results.Result).candidates
    assert "framework" not in ran[0]
    assert (None, "not installed") == (ran[1]["framework"].met, ran[1]["framework"].absent)


def test_without_names_the_short_set_runs(invented: ModuleType, tmp_path: Path) -> None:
    assert 0 == CliRunner().invoke(command.app, ["run", "--repeat", "1"]).exit_code
    assert ["invented.json"] == [path.name for path in tmp_path.iterdir()]
    invented.__dict__["SHORT"] = False
    (tmp_path / "invented.json").unlink()
    assert 0 == CliRunner().invoke(command.app, ["run", "--repeat", "1"]).exit_code
    assert [] == list(tmp_path.iterdir())
