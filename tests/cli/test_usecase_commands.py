from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tailrace.cli_usecase import app

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
BROKEN = "import tailrace as tr\nx = tr.Cuont()\n"


def test_check_lists_findings_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "usecase.py").write_text(BROKEN)
    result = CliRunner().invoke(app, ["check", "--json", "--use-cases", str(tmp_path)])
    (checked,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "did you mean 'Count'?" in checked["findings"][0]


def test_check_of_the_repository_finds_nothing() -> None:
    result = CliRunner().invoke(app, ["check", "--use-cases", str(REPOSITORY)])
    assert result.exit_code == 0, result.stdout


def test_check_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", "--use-cases", str(tmp_path)])
    assert result.exit_code == 1
    assert "there is no use case in" in result.stdout


def test_plan_prints_one_row_per_column() -> None:
    result = CliRunner().invoke(app, ["plan", "card_fraud", "--use-cases", str(REPOSITORY)], env={"COLUMNS": "160"})
    assert "merchant_id_mean_label_7d" in result.stdout
    assert "mean label" in result.stdout


def test_plan_as_json_is_the_plan() -> None:
    result = CliRunner().invoke(app, ["plan", "card_fraud", "--json", "--use-cases", str(REPOSITORY)])
    assert json.loads(result.stdout)["use_case"] == "card_fraud"


def test_schemas_are_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["schemas", str(tmp_path), "--json"])
    assert str(tmp_path / "asyncapi.yaml") in json.loads(result.stdout)
