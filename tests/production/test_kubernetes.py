"""k8s/ against the code: every setting, port, topic, group and user that stands there is one the code knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrace.backends import strimzi
from tailrace.backends.settings import Settings
from tailrace.contracts.access import PREFIX
from tailrace.contracts.topics import Topics
from tailrace.runtime.service import SERVICES
from tailrace.usecase.declaration import UseCase

ROOT = Path(__file__).parents[2]
WORKERS = {"features", "inference"}
"""Services of which several workers may run; of the others a second one would be fenced."""
LAYERS = ["base", "production"]
Documents = list[dict[str, Any]]


def of_kind(documents: Documents, *kinds: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] in kinds}


def workloads(documents: Documents) -> dict[str, dict[str, Any]]:
    return of_kind(documents, "Deployment", "StatefulSet")


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)


def environment(documents: Documents, service: str) -> dict[str, str]:
    """Variables of a container; what comes from a Secret or from the pod reads `<…>`."""
    found: dict[str, str] = {}
    spec = container(workloads(documents)[service])
    for source in spec["envFrom"]:
        found |= of_kind(documents, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    for variable in spec.get("env", []):
        found[variable["name"]] = variable.get("value", "<reference>")
    return found


def importers(module: str) -> set[str]:
    """Services that import a module, wherever they do."""
    folder = ROOT / "services" / "tailrace"
    return {name for name in SERVICES for file in (folder / name).rglob("*.py") if module in file.read_text()}


@pytest.fixture(params=LAYERS)
def documents(request: pytest.FixtureRequest) -> Documents:
    found: Documents = request.getfixturevalue(request.param)
    return found


def test_each_service_runs_by_its_own_command_and_is_named_like_it(documents: Documents) -> None:
    found = {name: container(workload)["args"] for name, workload in workloads(documents).items()}
    assert {name: ["run", name, "--use-case", "$(USE_CASE)"] for name in SERVICES} == found
    for name, workload in workloads(documents).items():
        labels = {"app.kubernetes.io/component": name}
        assert labels == workload["spec"]["selector"]["matchLabels"]
        assert labels.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_setting_with_a_value_it_takes(documents: Documents, service: str, tmp_path: Path) -> None:
    variables = environment(documents, service)
    others = {name: value for name, value in variables.items() if not name.startswith("TAILRACE_")}
    values = {name.removeprefix("TAILRACE_").lower(): variables[name] for name in variables.keys() - others.keys()}
    assert ("<reference>" == values.get("ops_tokens")) == (service == "ops")
    if values.get("redis_url") == "<reference>":
        values["redis_url"] = "rediss://user:password@redis:6379/0"
    if "kafka_ca" in values:
        mounts = {mount["mountPath"] for mount in container(workloads(documents)[service])["volumeMounts"]}
        assert str(Path(values["kafka_ca"]).parent) in mounts
        values["kafka_ca"] = str(tmp_path / "ca.crt")
        (tmp_path / "ca.crt").touch()
    settings = Settings(**values)  # type: ignore[arg-type]  # pydantic reads the texts, and refuses unknown names
    assert "card_fraud" == others.pop("USE_CASE")
    if settings.threads != Settings().threads or others:
        pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        assert dict.fromkeys(pools, str(settings.threads)) == others


def test_probes_are_asked_where_the_image_serves_them(documents: Documents) -> None:
    exposed = next(line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("EXPOSE"))
    for workload in workloads(documents).values():
        spec = container(workload)
        assert [{"name": "metrics", "containerPort": int(exposed.split()[1])}] == spec["ports"]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert {"path": path, "port": "metrics"} == spec[probe]["httpGet"]


def test_containers_are_as_restricted_as_kubernetes_knows(documents: Documents) -> None:
    for workload in workloads(documents).values():
        pod = workload["spec"]["template"]["spec"]
        spec = container(workload)
        assert pod["securityContext"]["runAsNonRoot"]
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
        assert not pod["automountServiceAccountToken"]
        # A Service called tailrace-… would otherwise set variables that Tailrace refuses as unknown.
        assert not pod["enableServiceLinks"]
        assert spec["securityContext"]["readOnlyRootFilesystem"]
        assert not spec["securityContext"]["allowPrivilegeEscalation"]
        assert ["ALL"] == spec["securityContext"]["capabilities"]["drop"]
        assert "memory" in spec["resources"]["limits"]
        assert {"cpu", "memory"} <= set(spec["resources"]["requests"])


def test_workers_keep_their_names_and_singletons_are_never_two(documents: Documents) -> None:
    for name, workload in workloads(documents).items():
        if name in WORKERS:
            assert "StatefulSet" == workload["kind"]
            instance = {"name": "TAILRACE_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            assert instance in container(workload)["env"]
        elif name != "ops":
            assert 1 == workload["spec"]["replicas"]
            never_two = workload["kind"] == "StatefulSet" or workload["spec"]["strategy"] == {"type": "Recreate"}
            assert never_two, name
    assert WORKERS == set(of_kind(documents, "PodDisruptionBudget"))


def test_bundles_are_mounted_where_code_opens_them_and_written_by_the_trainer_alone(documents: Documents) -> None:
    found = {}
    for name, workload in workloads(documents).items():
        for mount in container(workload)["volumeMounts"]:
            if mount["name"] == "bundles":
                assert "/var/lib/tailrace/bundles" == mount["mountPath"]
                found[name] = mount.get("readOnly", False)
    assert importers("backends.artifacts import") == set(found)
    assert {"trainer"} == {name for name, read_only in found.items() if not read_only}


def test_network_is_closed_but_for_what_a_service_imports(documents: Documents) -> None:
    policies = of_kind(documents, "NetworkPolicy")
    everything = {"matchLabels": {"app.kubernetes.io/part-of": "tailrace"}}
    assert {"podSelector": everything, "policyTypes": ["Ingress", "Egress"]} == policies.pop("refuse-all")["spec"]
    allowed = {}
    for name, policy in policies.items():
        chosen = policy["spec"]["podSelector"].get("matchExpressions")
        allowed[name] = set(chosen[0]["values"]) if chosen else set(SERVICES)
    assert allowed == {
        "names": set(SERVICES),
        "kafka": set(SERVICES),
        "metrics": set(SERVICES),
        "online-store": importers("backends.feature_store"),
        "registry": importers("backends.registry"),
    }
    ports = {
        name: policy["spec"]["egress"][0]["ports"][0]["port"] for name, policy in policies.items() if name != "metrics"
    }
    settings = environment(documents, "ops")
    assert settings["TAILRACE_KAFKA_BOOTSTRAP"].endswith(f":{ports['kafka']}")
    assert f":{ports['registry']}" in settings["TAILRACE_MLFLOW_URI"]
    assert f":{ports['online-store']}/" in settings["TAILRACE_REDIS_URL"]


def test_topics_and_users_are_what_the_code_makes(card_fraud: UseCase) -> None:
    committed = (ROOT / "k8s" / "overlays" / "production" / "kafka.yaml").read_text()
    command = "TAILRACE_PARTITIONS=12 TAILRACE_REPLICATION=3 tailrace topics strimzi --use-case card_fraud"
    made = strimzi.text([card_fraud], "tailrace", partitions=12, replication=3)
    assert made == committed, f"run `{command} > k8s/overlays/production/kafka.yaml`"


def test_each_service_has_a_user_of_its_own_whose_password_strimzi_writes(production: Documents) -> None:
    users = of_kind(production, "KafkaUser")
    for name, workload in workloads(production).items():
        variables = {variable["name"]: variable for variable in container(workload)["env"]}
        assert PREFIX + name == variables["TAILRACE_KAFKA_USERNAME"]["value"]
        reference = variables["TAILRACE_KAFKA_PASSWORD"]["valueFrom"]["secretKeyRef"]
        assert {"name": PREFIX + name, "key": "password"} == reference
        assert "scram-sha-512" == users[PREFIX + name]["spec"]["authentication"]["type"]
        assert "SASL_SSL" == environment(production, name)["TAILRACE_KAFKA_SECURITY"]
    assert {} == of_kind(production, "Secret"), "secrets are referred to, never committed"


def test_workers_are_scaled_by_the_lag_of_the_group_that_the_code_joins(
    production: Documents, card_fraud: UseCase
) -> None:
    topics = Topics(card_fraud.name)
    consumed = {"features": card_fraud.requests.name, "inference": topics.features}
    partitions = {t["spec"]["topicName"]: t["spec"]["partitions"] for t in of_kind(production, "KafkaTopic").values()}
    scaled = of_kind(production, "ScaledObject")
    assert WORKERS == set(scaled)
    for name, found in scaled.items():
        (trigger,) = found["spec"]["triggers"]
        assert {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name} == found["spec"]["scaleTargetRef"]
        assert topics.group(name) == trigger["metadata"]["consumerGroup"]
        assert consumed[name] == trigger["metadata"]["topic"]
        assert "true" == trigger["metadata"]["excludePersistentLag"]
        assert environment(production, name)["TAILRACE_KAFKA_BOOTSTRAP"] == trigger["metadata"]["bootstrapServers"]
        assert partitions[consumed[name]] == found["spec"]["maxReplicaCount"]
        assert "replicas" not in workloads(production)[name]["spec"]
    rules = of_kind(production, "KafkaUser")["tailrace-lag"]["spec"]["authorization"]["acls"]
    assert all(["Describe"] == rule["operations"] for rule in rules)
    wanted = {("topic", topic) for topic in consumed.values()} | {("group", topics.group(name)) for name in WORKERS}
    assert wanted == {(rule["resource"]["type"], rule["resource"]["name"]) for rule in rules}


def test_inference_asks_for_a_gpu_in_production_and_nothing_else_does(production: Documents) -> None:
    limits = {name: container(workload)["resources"]["limits"] for name, workload in workloads(production).items()}
    assert {"inference": "1"} == {name: x["nvidia.com/gpu"] for name, x in limits.items() if "nvidia.com/gpu" in x}


def test_jobs_of_prometheus_are_called_as_the_services_are(production: Documents) -> None:
    (monitor,) = of_kind(production, "PodMonitor").values()
    assert "app.kubernetes.io/component" == monitor["spec"]["jobLabel"]
    assert ["metrics"] == [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]]


def test_kubernetes_knows_every_field(documents: Documents, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    program = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [program, "--strict", "--no-warn", "--quiet", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
