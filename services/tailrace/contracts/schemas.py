"""Writes the published contracts: JSON Schema, Avro and AsyncAPI, all generated from the records and `topics`."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as inspection
import yaml
from fastavro import parse_schema

from tailrace.contracts import quality, records, retraining
from tailrace.contracts.topics import AUDIT, Topics

NAMESPACE = "tailrace"
_PARAMETER = "{use_case}"
_HEADER = records.DEAD_LETTER_HEADER
_JSON_SCHEMA = "application/schema+json;version=draft-2020-12"

CHANNELS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "features": (records.FeatureRow,),
    "predictions": (records.Prediction,),
    "shadow": (records.Prediction,),
    "labels": (records.LabelledPrediction,),
    "quality": (quality.Quality,),
    "drift": (quality.Drift,),
    "alarms": (quality.Alarm,),
    "retraining": (
        retraining.RetrainRequested,
        retraining.RetrainHeld,
        retraining.TrainingStarted,
        retraining.CandidateRegistered,
        retraining.CandidateRefused,
        retraining.PromoteRequested,
        retraining.RollbackRequested,
        retraining.OperatorAction,
        retraining.EraseRequested,
    ),
    "control": (records.RoutingTable,),
    "dead_letters": (records.DeadLetter, records.DeadLettersReplayed),
    "heartbeats": (records.Heartbeat,),
    "audit": (records.AuditEntry,),
}
"""Record types by topic, after the properties of `Topics`. Changelogs are private to their service."""


def record_types() -> list[type[msgspec.Struct]]:
    """Every published record type once, in the order of the topics."""
    return list(dict.fromkeys(kind for kinds in CHANNELS.values() for kind in kinds))


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a record type; types it uses stand under `$defs`."""
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for component in components.values():
        component["description"] = inspect.cleandoc(component["description"])
    root = components.pop(kind.__name__)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{kind.__name__}.json", **root}
    return {**schema, "$defs": components} if components else schema


def avro_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Avro schema of a record type, checked by fastavro.

    Unions that allow None become `["null", ...]` with null first, so that a reader knows the default.
    """
    schema: dict[str, Any] = _avro(inspection.type_info(kind), set())
    # fastavro marks what it has parsed; the copy keeps the marks out of the files.
    parse_schema(copy.deepcopy(schema))
    return schema


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0 document: one channel per topic, with its record types as messages."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    topics = Topics(_PARAMETER)
    for channel, kinds in CHANNELS.items():
        address = AUDIT if channel == "audit" else getattr(topics, channel)
        text = "Decisions with their evidence." if channel == "audit" else getattr(Topics, channel).__doc__
        channels[channel] = {
            "address": address,
            "description": text,
            "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds},
        }
        if _PARAMETER in address:
            channels[channel]["parameters"] = {"use_case": {"description": "Name of the use case."}}
        operations[f"receive_{channel}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{channel}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tailrace",
            "version": "1",
            "description": "Records that travel between the services of a use case, one JSON object each. "
            "Times are epoch milliseconds, UTC. A record without value and with the header "
            f"{records.WATERMARK_HEADER} promises that nothing older than that time follows on its partition. "
            f"A record with the header {_HEADER} holds a bad record of its source, byte for byte; "
            f"{records.REPLAYED_HEADER} marks a note that such records have been sent again.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": {kind.__name__: _message(kind) for kind in record_types()}},
    }


def write_schemas(directory: Path) -> list[Path]:
    """Writes every schema below a directory and returns the files, sorted.

    Files are `json/<Record>.json`, `avro/<Record>.avsc` and `asyncapi.yaml`; the same records give
    the same bytes.
    """
    texts = {directory / "asyncapi.yaml": yaml.safe_dump(asyncapi(), sort_keys=False, width=110)}
    for kind in record_types():
        texts[directory / "json" / f"{kind.__name__}.json"] = _text(json_schema(kind))
        texts[directory / "avro" / f"{kind.__name__}.avsc"] = _text(avro_schema(kind))
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return sorted(texts)


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    message: dict[str, Any] = {"name": kind.__name__, "summary": inspect.cleandoc(kind.__doc__ or "").split("\n")[0]}
    schema = {"schemaFormat": _JSON_SCHEMA, "schema": {"$ref": f"./json/{kind.__name__}.json"}}
    if kind is not records.DeadLetter:
        return {**message, "contentType": "application/json", "payload": schema}
    header = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": f"JSON text, see ./json/{kind.__name__}.json",
    }
    headers = {"type": "object", "required": [_HEADER], "properties": {_HEADER: header}}
    return {**message, "contentType": "application/octet-stream", "headers": headers}


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _record(info: inspection.StructType, seen: set[str]) -> str | dict[str, Any]:
    name = info.cls.__name__
    if name in seen:
        return f"{NAMESPACE}.{name}"
    seen.add(name)
    fields: list[dict[str, Any]] = []
    if info.tag_field is not None:
        fields.append({"name": info.tag_field, "type": "string", "default": info.tag})
    for field in info.fields:
        fields.append({"name": field.name, "type": _avro(field.type, seen), **_default(field)})
    return {
        "type": "record",
        "name": name,
        "namespace": NAMESPACE,
        "doc": (info.cls.__doc__ or "").split("\n")[0],
        "fields": fields,
    }


def _default(field: inspection.Field) -> dict[str, Any]:
    if field.default is not msgspec.NODEFAULT:
        return {"default": field.default}
    if field.default_factory is not msgspec.NODEFAULT:
        return {"default": field.default_factory()}
    return {}


def _avro(info: inspection.Type, seen: set[str]) -> Any:
    match info:
        case inspection.BoolType():
            return "boolean"
        case inspection.IntType():
            return "long"
        case inspection.FloatType():
            return "double"
        case inspection.NoneType():
            return "null"
        case inspection.StrType() | inspection.LiteralType():
            # Not an Avro enum: a new value would break every reader that has the old schema.
            return "string"
        case inspection.ListType(item_type=item):
            return {"type": "array", "items": _avro(item, seen)}
        case inspection.DictType(value_type=value):
            return {"type": "map", "values": _avro(value, seen)}
        case inspection.UnionType(types=types):
            return sorted((_avro(t, seen) for t in types), key=lambda branch: branch != "null")
        case inspection.StructType():
            return _record(info, seen)
        case _:
            raise TypeError(f"{info} has no Avro form yet; add one, or use a plainer type in the record")
