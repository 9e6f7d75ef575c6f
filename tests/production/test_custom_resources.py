"""Resources of operators, by the schemas that the operators publish with their code."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from tests.production.conftest import Documents, module

DEFINITIONS = {
    "github.com/kedacore/keda/v2@v2.18.1": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ],
}
TEXT = {"type": "string"}


def thing(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


# Strimzi publishes its definitions with its Java code only. These say as much of kafka.strimzi.io/v1 as we use.
STRIMZI = {
    "KafkaTopic": thing(
        "topicName partitions replicas config",
        topicName=TEXT,
        partitions={"type": "integer", "minimum": 1},
        replicas={"type": "integer", "minimum": 1, "maximum": 32_767},
        config={"type": "object"},
    ),
    "KafkaUser": thing(
        "authentication authorization",
        authentication=thing("type", type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
        authorization=thing(
            "type acls",
            type={"const": "simple"},
            acls={
                "type": "array",
                "items": thing(
                    "resource operations",
                    resource=thing(
                        "type name",
                        type={"enum": ["topic", "group", "cluster", "transactionalId"]},
                        name=TEXT,
                        patternType={"enum": ["literal", "prefix"]},
                    ),
                    operations={"type": "array", "items": {"enum": ["Read", "Write", "Describe"]}},
                ),
            },
        ),
    ),
}


def strict(schema: Any) -> Any:
    """A schema of a definition, that refuses what it does not name, as a server that prunes would not."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {name: strict(value) for name, value in schema.items() if name != "format"}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """Schemas of `spec` by kind."""
    found = dict(STRIMZI)
    for name, files in DEFINITIONS.items():
        folder = module(name)
        for file in files:
            definition = yaml.safe_load((folder / file).read_text())["spec"]
            version = next(version for version in definition["versions"] if version["storage"])
            schema = version["schema"]["openAPIV3Schema"]["properties"]
            found[definition["names"]["kind"]] = strict(schema["spec"])
    return found


def test_operators_know_every_field(production: Documents, schemas: dict[str, Any]) -> None:
    found = [document for document in production if document["kind"] in schemas]
    assert {"KafkaTopic", "KafkaUser", "ScaledObject", "TriggerAuthentication", "PodMonitor"} == {
        document["kind"] for document in found
    }
    for document in found:
        jsonschema.validate(document["spec"], schemas[document["kind"]])


@pytest.mark.parametrize("kind", ["KafkaTopic", "KafkaUser", "ScaledObject", "PodMonitor"])
def test_a_misspelt_field_is_found(production: Documents, schemas: dict[str, Any], kind: str) -> None:
    document = next(document for document in production if document["kind"] == kind)
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        jsonschema.validate(document["spec"] | {"misspelt": 1}, schemas[kind])
