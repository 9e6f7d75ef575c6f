"""Topics and users of use cases as resources of Strimzi, for clusters whose topics are kept in Git."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from tailrace.backends.access import streams_of
from tailrace.backends.kafka import MAX_MESSAGE_BYTES
from tailrace.backends.topics import specs_of
from tailrace.contracts.access import MATRIX, PREFIX, Kind, Principal, grants
from tailrace.contracts.topics import TopicSpec
from tailrace.usecase.declaration import UseCase

API = "kafka.strimzi.io/v1"
_HEADER = "# Made by `tailrace topics strimzi`: change the use case, not this file.\n"
_KINDS: dict[Kind, str] = {"topic": "topic", "group": "group", "transactional id": "transactionalId"}


def text(use_cases: Sequence[UseCase], cluster: str, *, partitions: int, replication: int) -> str:
    """Every KafkaTopic and KafkaUser of some use cases as YAML; the same use cases give the same text.

    Args:
        use_cases: Use cases that share the cluster. A user has the rights of its service on all of them.
        cluster: Name of the `Kafka` resource.
        partitions: Of every topic that has no number of its own.
        replication: Copies of each partition; writes need all but one of them.
    """
    specs = {spec.name: spec for use_case in use_cases for spec in specs_of(use_case)}
    documents = [_topic(spec, cluster, partitions, replication) for spec in specs.values()]
    documents += [_user(principal, use_cases, cluster) for principal in MATRIX]
    return _HEADER + yaml.safe_dump_all(documents, sort_keys=False, width=110)


def _topic(spec: TopicSpec, cluster: str, partitions: int, replication: int) -> dict[str, Any]:
    return _resource("KafkaTopic", _name(spec.name), cluster) | {
        "spec": {
            "topicName": spec.name,
            "partitions": spec.partitions or partitions,
            "replicas": replication,
            "config": {
                "cleanup.policy": "compact" if spec.compacted else "delete",
                "retention.ms": spec.retention_ms,
                "max.message.bytes": MAX_MESSAGE_BYTES,
                "min.insync.replicas": max(1, replication - 1),
            },
        }
    }


def _user(principal: Principal, use_cases: Sequence[UseCase], cluster: str) -> dict[str, Any]:
    return _resource("KafkaUser", PREFIX + principal, cluster) | {
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": list(_acls(principal, use_cases))},
        }
    }


def _acls(principal: Principal, use_cases: Sequence[UseCase]) -> Iterator[dict[str, Any]]:
    streams = [streams_of(case) for case in use_cases]
    # Some topics, the audit's among them, are common to several use cases.
    for grant in dict.fromkeys(grant for one in streams for grant in grants(principal, one)):
        resource = {"type": _KINDS[grant.kind], "name": grant.name}
        if grant.prefixed:
            resource["patternType"] = "prefix"
        yield {"resource": resource, "operations": [grant.operation.title()]}


def _resource(kind: str, name: str, cluster: str) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": name, "labels": {"strimzi.io/cluster": cluster}},
    }


def _name(topic: str) -> str:
    """A topic's name as Kubernetes allows it."""
    return topic.lower().replace("_", "-")
