from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
import yaml

from tailrace.contracts import records, retraining
from tailrace.contracts.schemas import avro_schema, json_schema, record_types, write_schemas
from tailrace.contracts.topics import Topics

COMMITTED = Path(__file__).parents[2] / "schemas"


def test_committed_schemas_are_what_the_records_say(tmp_path: Path) -> None:
    written = {file.relative_to(tmp_path): file.read_bytes() for file in write_schemas(tmp_path)}
    committed = {file.relative_to(COMMITTED): file.read_bytes() for file in COMMITTED.rglob("*") if file.is_file()}
    assert committed == written, "records changed: run `tailrace schemas` and commit the result"


def test_every_topic_but_the_changelogs_is_a_channel() -> None:
    document = yaml.safe_load((COMMITTED / "asyncapi.yaml").read_text())
    topics = Topics("shop")
    private = {topics.features_changelog, topics.feedback_changelog, topics.join_changelog, topics.observations}
    addresses = {channel["address"].replace("{use_case}", "shop") for channel in document["channels"].values()}
    assert addresses == {spec.name for spec in Topics("shop").owned()} - private


def test_references_of_the_asyncapi_document_resolve() -> None:
    document = yaml.safe_load((COMMITTED / "asyncapi.yaml").read_text())

    def check(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                check(item)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref" and value.startswith("./"):
                    assert (COMMITTED / value).is_file(), value
                elif key == "$ref":
                    target = document
                    for part in value.removeprefix("#/").split("/"):
                        target = target[part]
                else:
                    check(value)

    check(document)


@pytest.mark.parametrize("kind", record_types(), ids=lambda kind: kind.__name__)
def test_json_schema_names_every_field_of_the_record(kind: type[msgspec.Struct]) -> None:
    schema = json_schema(kind)
    tag = {kind.__struct_config__.tag_field} - {None}
    assert set(schema["properties"]) == set(kind.__struct_fields__) | tag
    json.dumps(schema)


def test_a_record_with_a_union_and_nested_records_survives_avro() -> None:
    record = retraining.CandidateRegistered(
        run_id="r",
        use_case="shop",
        model_version="3",
        bundle_uri="file:///b",
        digest="sha256:0",
        registered_at_ms=1,
        gates=[retraining.GateResult(name="g", passed=True, candidate=0.5, champion=None, detail="")],
        metrics={"log_loss": 0.5, "roc_auc": None},
        lineage={"rows": "9"},
    )
    builtins = msgspec.to_builtins(record)
    schema = fastavro.parse_schema(avro_schema(retraining.CandidateRegistered))
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, builtins, strict=True)
    buffer.seek(0)
    assert fastavro.schemaless_reader(buffer, schema, None) == builtins


def test_a_nested_record_is_defined_once_and_then_named() -> None:
    fields = {field["name"]: field["type"] for field in avro_schema(records.RoutingTable)["fields"]}
    assert fields["variants"]["items"]["name"] == "Variant"
    assert fields["warm"]["items"] == "tailrace.Variant"
