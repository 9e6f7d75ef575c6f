from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from tailrace import cli
from tailrace.errors import BrokerUnavailable, ConfigError, StateCorrupt, TailraceError, UseCaseError


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if hasattr(command, "commands"):
            found.extend(_commands(command, (*path, name)))
    return found


COMMANDS = _commands(typer.main.get_command(cli.app))  # type: ignore[arg-type]  # an app with commands is a group


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*words, "--help"])
    assert 0 == result.exit_code
    assert "Usage" in result.output


def test_commands_of_the_design_exist() -> None:
    wanted = (
        "up down status doctor run check plan schemas models promote rollback retrain quality alarms replay audit demo"
    )
    assert {*wanted.split(), "topics apply", "topics strimzi", "dead-letters list", "dead-letters replay"} <= set(
        map(" ".join, COMMANDS)
    )


def test_unknown_service_is_wrong_usage_that_lists_the_services() -> None:
    result = CliRunner().invoke(cli.app, ["run", "infrence", "--use-case", "card_fraud"])
    assert 2 == result.exit_code
    assert "inference" in result.output


def test_nothing_runs_is_said_with_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["status", "--dir", str(tmp_path)])
    assert 1 == result.exit_code
    assert "start it with `tailrace up`" in result.output


def test_ending_what_does_not_run_is_no_failure(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["down", "--dir", str(tmp_path)])
    assert 0 == result.exit_code


def test_doctor_exits_with_78_and_names_causes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_KAFKA_BOOTSTRAP", "no-such-host.invalid:9092")
    monkeypatch.setenv("TAILRACE_USE_CASES", str(tmp_path))
    result = CliRunner().invoke(cli.app, ["doctor", "--json"])
    findings = {finding["subject"]: finding for finding in json.loads(result.stdout)}
    assert 78 == result.exit_code
    assert "is unknown" in findings["kafka"]["detail"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("topic payments[3] is wrong"), 78),
        (UseCaseError("shop", ["column [a] is unknown"]), 78),
        (BrokerUnavailable("127.0.0.1:9[/]092 is silent"), 1),
        (StateCorrupt("offset [7]"), 1),
        (TailraceError("no"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_becomes_its_message_and_an_exit_code(
    error: TailraceError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert code == ended.value.code
    assert f"tailrace: {error}\n" == capsys.readouterr().err


def test_misspelt_setting_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAILRACE_KAFKA_BOOTSTRP", "k:9092")
    monkeypatch.setattr(sys, "argv", ["tailrace", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert 78 == ended.value.code
    assert "did you mean TAILRACE_KAFKA_BOOTSTRAP?" in capsys.readouterr().err
