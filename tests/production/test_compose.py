"""docker-compose.yml against the code, and against docker compose itself."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient, ConfigResource
from typer.main import get_command

from tailrace.backends.settings import Settings
from tailrace.cli import app
from tailrace.local.broker import KAFKA
from tailrace.ops.auth import doorkeeper
from tailrace.runtime.service import SERVICES

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in DOCUMENT["services"].items() if str(service["image"]).startswith("tailrace")}


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of an image's arguments; nothing is run."""
    command: Any = get_command(app)
    context = None
    while hasattr(command, "commands"):
        context = command.make_context("tailrace", words, parent=context)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    parameters: dict[str, Any] = command.make_context(name, words, parent=context).params
    return {"command": name, **parameters}


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """Variables of a service, with the defaults of those that compose fills in, and a password."""
    found = {}
    for name, value in service["environment"].items():
        filled = re.sub(r"\$\{OPS_TOKEN.*\}", "t" * 32, str(value))
        found[name] = re.sub(r"\$\{\w+:-(.*)\}", r"\1", filled)
    return found


def test_the_six_services_run_beside_their_servers() -> None:
    commands = {name: parsed(service["command"]) for name, service in OURS.items()}
    assert {"command": "apply", "use_case": ["${USE_CASE:-card_fraud}"], "directory": None} == commands.pop("topics")
    assert {*SERVICES, "inference-gpu"} == set(commands)
    for name, command in commands.items():
        expected = {"command": "run", "service": name.removesuffix("-gpu"), "use_case": "${USE_CASE:-card_fraud}"}
        assert expected == command
    assert {"kafka", "redis", "mlflow", "prometheus", "grafana"} == set(DOCUMENT["services"]) - set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_every_environment_variable_is_a_setting_and_points_at_a_service(name: str) -> None:
    values = {key.removeprefix("TAILRACE_").lower(): value for key, value in environment_of(OURS[name]).items()}
    settings = Settings(**values)  # type: ignore[arg-type]  # pydantic reads the texts
    services = DOCUMENT["services"]
    assert f"INTERNAL://{settings.kafka_bootstrap}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "redis://redis:6379/0" == settings.redis_url
    port = next(word for word in services["mlflow"]["command"] if word.startswith("--port=")).removeprefix("--port=")
    assert f"http://mlflow:{port}" == settings.mlflow_uri


def test_console_asks_for_the_password_and_is_published_where_it_listens() -> None:
    values = {key.removeprefix("TAILRACE_").lower(): value for key, value in environment_of(OURS["ops"]).items()}
    settings = Settings(**values)  # type: ignore[arg-type]  # pydantic reads the texts
    assert "operator" == doorkeeper(settings).holder(settings.ops_token.get_secret_value())
    assert "0.0.0.0" == settings.ops_host
    assert [f"127.0.0.1:{settings.ops_port}:{settings.ops_port}"] == OURS["ops"]["ports"]


def test_instances_of_a_group_differ() -> None:
    workers = [OURS[name]["environment"].get("TAILRACE_INSTANCE", "0") for name in ("inference", "inference-gpu")]
    assert ["0", "gpu-0"] == workers


def test_topics_are_applied_before_any_service_starts() -> None:
    for name in set(OURS) - {"topics"}:
        assert {"condition": "service_completed_successfully"} == OURS[name]["depends_on"]["topics"]
    assert {"kafka": {"condition": "service_healthy"}} == OURS["topics"]["depends_on"]


def test_everything_has_a_health_check_a_restart_policy_and_limits_and_is_seen_on_loopback_alone() -> None:
    for name, service in DOCUMENT["services"].items():
        assert service["healthcheck"], name
        assert service["restart"], name
        assert {"cpus", "memory"} == set(service["deploy"]["resources"]["limits"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_services_run_without_rights_on_a_root_they_cannot_write() -> None:
    for service in OURS.values():
        assert service["read_only"]
        assert ["ALL"] == service["cap_drop"]
        assert ["no-new-privileges:true"] == service["security_opt"]


def test_servers_have_the_versions_that_tailrace_is_tested_with() -> None:
    images = {
        name: service["image"].rsplit(":", 1)[1]
        for name, service in DOCUMENT["services"].items()
        if ":" in service["image"]
    }
    assert KAFKA.rsplit(":", 1)[1] == images["kafka"]
    locked = re.search(r"^mlflow-skinny==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked is not None
    assert f"v{locked[1]}" == images["mlflow"]


def test_kafka_knows_every_option_it_is_given(broker: str) -> None:
    # As the image makes options of variables; the others are its own.
    given = {
        name[6:].lower().replace("_", ".")
        for name in DOCUMENT["services"]["kafka"]["environment"]
        if name[:6] == "KAFKA_"
    }
    client = AdminClient({"bootstrap.servers": broker, "broker.address.family": "v4"})
    (answer,) = client.describe_configs([ConfigResource(ConfigResource.Type.BROKER, "1")]).values()
    assert {"heap.opts"} == given - set(answer.result(30))


def test_prometheus_scrapes_each_service_where_its_probes_are() -> None:
    port = re.search(r"127\.0\.0\.1:(\d+)/readyz", OURS["features"]["healthcheck"]["test"][-1])
    assert port is not None
    scraped = yaml.safe_load((ROOT / DOCUMENT["configs"]["prometheus"]["file"]).read_text())["scrape_configs"]
    targets = {job["job_name"]: [t for config in job["static_configs"] for t in config["targets"]] for job in scraped}
    assert {name: [f"{name}:{port[1]}"] for name in SERVICES} == targets


def test_loader_of_docker_compose_takes_the_file(compose: Path) -> None:
    command = [compose, "--no-interpolation", "--format", "json", "docker-compose.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    loaded = json.loads(done.stdout)["services"]
    assert set(DOCUMENT["services"]) == set(loaded)
    assert OURS["features"]["command"] == loaded["features"]["command"]


def test_loader_of_docker_compose_refuses_a_misspelt_key(compose: Path, tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text((ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace_perod"))
    done = subprocess.run([compose, "--no-interpolation", file], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "stop_grace_perod" in done.stdout + done.stderr
