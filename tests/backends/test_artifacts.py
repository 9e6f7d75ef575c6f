from pathlib import Path

import pytest

from tailrace.backends.artifacts import open_bundle, write_bundle
from tailrace.core.plan import Plan, RequestColumn
from tailrace.errors import ArtifactInvalid

PLAN = Plan(
    use_case="uc",
    version=1,
    key="card",
    event_time="at_ms",
    event_id="id",
    entities=(),
    slices=(),
    request=(RequestColumn(name="amount", kind="field", field="amount"),),
    views=(),
    field_types={"amount": "float"},
    threshold=0.5,
    default_score=0.1,
    latency_budget_ms=50,
)


def write(directory: Path, model: bytes = b"model") -> str:
    return write_bundle(
        directory, model=model, runtime="onnx", plan=PLAN, reference={"rows": 1}, metrics={"log_loss": 0.5}
    )


def test_bundle_survives_the_round_trip(tmp_path: Path) -> None:
    digest = write(tmp_path / "b")
    bundle = open_bundle((tmp_path / "b").as_uri(), digest)
    assert bundle.plan == PLAN
    assert (bundle.model, bundle.reference, bundle.metrics) == (b"model", {"rows": 1}, {"log_loss": 0.5})


def test_same_content_has_the_same_digest_and_other_content_another(tmp_path: Path) -> None:
    assert write(tmp_path / "a") == write(tmp_path / "b")
    assert write(tmp_path / "a") != write(tmp_path / "c", b"other")


@pytest.mark.parametrize("name", ["model.onnx", "plan.json", "reference.json", "metrics.json", "manifest.json"])
def test_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    digest = write(tmp_path / "b")
    path = tmp_path / "b" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactInvalid, match="promote another version"):
        open_bundle((tmp_path / "b").as_uri(), digest)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    digest = write(tmp_path / "b")
    (tmp_path / "b" / name).unlink()
    with pytest.raises(ArtifactInvalid, match="cannot be read"):
        open_bundle((tmp_path / "b").as_uri(), digest)


def test_manifest_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    import hashlib

    write(tmp_path / "b")
    (tmp_path / "secret").write_text("x")
    path = tmp_path / "b" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"plan.json"', b'"../secret"'))
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ArtifactInvalid, match="outside itself"):
        open_bundle((tmp_path / "b").as_uri(), digest)
