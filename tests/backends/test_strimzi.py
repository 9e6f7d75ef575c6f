from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tailrace.backends import strimzi
from tailrace.backends.topics import specs_of
from tailrace.contracts.access import MATRIX, PREFIX, Streams, grants
from tailrace.contracts.topics import AUDIT
from tailrace.usecase.load import load_use_case

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
CASES = [load_use_case(REPOSITORY, name) for name in ("card_fraud", "elec2")]


def resources(kind: str) -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(strimzi.text(CASES, "kafka-1", partitions=12, replication=3))
    return [document for document in documents if document["kind"] == kind]


def test_topics_are_those_that_topics_apply_makes_each_once() -> None:
    made = {topic["spec"]["topicName"]: topic["spec"] for topic in resources("KafkaTopic")}
    specs = {spec.name: spec for case in CASES for spec in specs_of(case)}
    assert specs.keys() == made.keys()
    for name, spec in specs.items():
        assert (spec.partitions or 12) == made[name]["partitions"]
        assert spec.retention_ms == made[name]["config"]["retention.ms"]
        assert ("compact" if spec.compacted else "delete") == made[name]["config"]["cleanup.policy"]
    assert 1 == sum(topic["spec"]["topicName"] == AUDIT for topic in resources("KafkaTopic"))
    names = Counter(topic["metadata"]["name"] for topic in resources("KafkaTopic"))
    assert {1} == set(names.values())
    assert not any("_" in name for name in names)


def test_a_user_has_the_rights_of_its_service_on_every_use_case() -> None:
    users = {user["metadata"]["name"]: user["spec"]["authorization"]["acls"] for user in resources("KafkaUser")}
    assert {PREFIX + principal for principal in MATRIX} == set(users)
    for principal in MATRIX:
        wanted = {
            (grant.name, grant.operation.title(), grant.prefixed)
            for case in CASES
            for grant in grants(principal, Streams(case.name, case.requests.name, case.label.topic.name))
        }
        rules = [
            (acl["resource"]["name"], *acl["operations"], acl["resource"].get("patternType") == "prefix")
            for acl in users[PREFIX + principal]
        ]
        assert wanted == set(rules)
        assert len(wanted) == len(rules)


def test_every_resource_belongs_to_the_cluster() -> None:
    found = [*resources("KafkaTopic"), *resources("KafkaUser")]
    assert {"kafka-1"} == {resource["metadata"]["labels"]["strimzi.io/cluster"] for resource in found}
