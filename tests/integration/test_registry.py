from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.uri import is_local_uri

from tailrace.backends.artifacts import open_bundle, write_bundle
from tailrace.backends.ports import DIGEST_TAG
from tailrace.backends.registry import MlflowRegistry
from tailrace.backends.settings import Settings
from tailrace.core.plan import Plan

PLAN = Plan(
    use_case="uc",
    version=1,
    key="card_id",
    event_time="at_ms",
    event_id="id",
    entities=(),
    slices=(),
    request=(),
    views=(),
    field_types={},
    threshold=0.5,
    default_score=0.0,
    latency_budget_ms=50,
)


@pytest.fixture
def registry(tmp_path: Path) -> MlflowRegistry:
    return MlflowRegistry(Settings(state_dir=tmp_path / "state"))


def bundle(tmp_path: Path, model: bytes = b"model") -> tuple[str, dict[str, str]]:
    directory = tmp_path / "bundle"
    digest = write_bundle(directory, model=model, runtime="onnx", plan=PLAN, reference={}, metrics={"log_loss": 0.5})
    return str(directory), {DIGEST_TAG: digest, "rows": "10"}


def test_bundle_that_was_registered_is_read_without_mlflow(tmp_path: Path, registry: MlflowRegistry) -> None:
    directory, lineage = bundle(tmp_path)
    registered = registry.register("uc", "run-1", directory, {"log_loss": 0.5}, lineage)
    assert b"model" == open_bundle(registered.bundle_uri, registered.digest).model


def test_source_is_none_that_an_mlflow_server_refuses_for_being_a_local_path(
    tmp_path: Path, registry: MlflowRegistry
) -> None:
    directory, lineage = bundle(tmp_path)
    registry.register("uc", "run-1", directory, {}, lineage)
    client = MlflowClient(f"sqlite:///{tmp_path / 'state' / 'mlflow' / 'mlflow.db'}")
    source = client.get_model_version("uc", "1").source
    assert lineage[DIGEST_TAG] in source
    assert not is_local_uri(source)


def test_same_run_gives_the_same_version(tmp_path: Path, registry: MlflowRegistry) -> None:
    directory, lineage = bundle(tmp_path)
    versions = [registry.register("uc", run, directory, {}, lineage).version for run in ("run-1", "run-1", "run-2")]
    assert ["1", "1", "2"] == versions


def test_models_come_newest_first_with_figures_lineage_and_aliases(tmp_path: Path, registry: MlflowRegistry) -> None:
    directory, lineage = bundle(tmp_path)
    for run in ("run-1", "run-2"):
        registry.register("uc", run, directory, {"log_loss": 0.25}, lineage)
    registry.alias("uc", "champion", "1")
    registry.alias("uc", "champion", "2")
    registry.alias("uc", "former", "1")
    models = registry.models("uc")
    assert [("2", ("champion",)), ("1", ("former",))] == [(model.version, model.aliases) for model in models]
    assert {"log_loss": 0.25} == models[0].metrics
    assert "10" == models[0].tags["rows"]


def test_use_case_without_models_has_none(registry: MlflowRegistry) -> None:
    assert [] == registry.models("uc")
