"""The model registry: MLflow for versions, aliases and lineage; bundles lie beside it, named by digest."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("MLFLOW_ENABLE_DB_SDK_TELEMETRY", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import mlflow  # the variables above are read at import
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tailrace.backends.ports import DIGEST_TAG, RegisteredModel
from tailrace.backends.settings import Settings
from tailrace.errors import RegistryUnavailable

RUN_TAG = "tailrace.run_id"
BUNDLE_TAG = "tailrace.bundle_uri"
METRIC_TAG = "metric."


class MlflowRegistry:
    """Versions of models in MLflow. Registered models are named like their use case.

    Args:
        settings: `mlflow_uri`, or SQLite below `state_dir` where it is empty. Bundles are kept in
            `state_dir/bundles`, which workers read without MLflow.
    """

    def __init__(self, settings: Settings) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        directory = settings.state_dir.expanduser().resolve()
        self._bundles = directory / "bundles"
        if settings.mlflow_uri:
            uri = settings.mlflow_uri
        else:
            (directory / "mlflow").mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{directory / 'mlflow' / 'mlflow.db'}"
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        except MlflowException as error:
            raise RegistryUnavailable(
                f"MLflow at {uri} is not to be had; check TAILRACE_MLFLOW_URI: {error}"
            ) from error

    def register(
        self, use_case: str, run_id: str, bundle: str, metrics: Mapping[str, float], lineage: Mapping[str, str]
    ) -> RegisteredModel:
        """Stores a bundle directory and makes a version of it; the same run gives the same version.

        The aliases of the answer are left empty; `models` gives them.

        Raises:
            RegistryUnavailable: MLflow does not answer; try again.
        """
        digest = lineage[DIGEST_TAG]
        kept = self._keep(Path(bundle), digest)
        try:
            if not self._client.search_registered_models(f"name='{use_case}'"):
                self._client.create_registered_model(use_case)
            known = [v for v in self._versions(use_case) if v.tags.get(RUN_TAG) == run_id]
            if known:
                return _model(known[0], {})
            tags = (
                dict(lineage)
                | {RUN_TAG: run_id, BUNDLE_TAG: kept.as_uri()}
                | {METRIC_TAG + name: repr(x) for name, x in metrics.items()}
            )
            # An MLflow server refuses sources on a local path, so that the source says what, and a tag says where.
            version = self._client.create_model_version(use_case, f"bundle:/{digest}", tags=tags)
            return _model(version, {})
        except MlflowException as error:
            raise RegistryUnavailable(f"MLflow did not register run {run_id}: {error}") from error

    def alias(self, use_case: str, name: str, version: str) -> None:
        """Points an alias at a version.

        Raises:
            RegistryUnavailable: MLflow does not answer, or does not know the version.
        """
        try:
            self._client.set_registered_model_alias(use_case, name, version)
        except MlflowException as error:
            raise RegistryUnavailable(f"alias {name} of {use_case} not moved to version {version}: {error}") from error

    def models(self, use_case: str) -> list[RegisteredModel]:
        """All versions, newest first.

        Raises:
            RegistryUnavailable: MLflow does not answer.
        """
        try:
            versions = self._versions(use_case)
            # A search gives versions without their aliases; those stand with the registered model.
            aliases = self._client.get_registered_model(use_case).aliases if versions else {}
            return [_model(version, aliases) for version in versions]
        except MlflowException as error:
            raise RegistryUnavailable(f"the versions of {use_case} are not to be had: {error}") from error

    def _versions(self, use_case: str) -> list[ModelVersion]:
        found = self._client.search_model_versions(f"name='{use_case}'", max_results=10_000)
        return sorted(found, key=lambda version: -int(version.version))

    def _keep(self, bundle: Path, digest: str) -> Path:
        kept = self._bundles / digest.removeprefix("sha256:")
        if not kept.exists():
            self._bundles.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}.part")
            shutil.copytree(bundle, part, dirs_exist_ok=True)
            part.rename(kept)
        return kept


def _model(version: ModelVersion, aliases: Mapping[str, str]) -> RegisteredModel:
    metrics = {
        name.removeprefix(METRIC_TAG): float(value)
        for name, value in version.tags.items()
        if name.startswith(METRIC_TAG)
    }
    return RegisteredModel(
        version=str(version.version),
        run_id=version.tags.get(RUN_TAG, ""),
        bundle_uri=version.tags.get(BUNDLE_TAG, version.source or ""),
        digest=version.tags.get(DIGEST_TAG, ""),
        aliases=tuple(sorted(name for name, at in aliases.items() if str(at) == str(version.version))),
        metrics=metrics,
        tags=dict(version.tags),
        created_at_ms=int(version.creation_timestamp),
    )
