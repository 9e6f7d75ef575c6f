"""Model bundles: a directory with model, plan and reference figures, each file named by its hash.

    model.onnx | model.pt2   the model: float32 rows (n, d) in plan order, NaN = missing -> scores (n,)
    plan.json                the serving plan it was trained for
    reference.json           distribution of its training rows, for drift detection
    metrics.json             its figures at the gates
    manifest.json            format, runtime, and the SHA-256 of every other file

The digest of a bundle is the SHA-256 of its manifest, so it stands for every byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from pyarrow import fs

from tailrace.core.plan import Plan
from tailrace.errors import ArtifactInvalid

FORMAT = 1
MODEL_FILES = {"onnx": "model.onnx", "torch": "model.pt2"}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds."""

    format: int
    runtime: Literal["onnx", "torch"]
    files: dict[str, str]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle in memory, every byte checked against its manifest."""

    digest: str
    runtime: Literal["onnx", "torch"]
    plan: Plan
    model: bytes
    reference: dict[str, Any]
    metrics: dict[str, float | None]


def write_bundle(
    directory: Path,
    *,
    model: bytes,
    runtime: Literal["onnx", "torch"],
    plan: Plan,
    reference: Mapping[str, Any],
    metrics: Mapping[str, float | None],
) -> str:
    """Writes a bundle; the directory appears complete or not at all.

    Returns:
        The bundle's digest, "sha256:" and 64 hex digits. The same content gives the same digest.
    """
    contents = {
        MODEL_FILES[runtime]: model,
        "plan.json": msgspec.json.encode(plan),
        "reference.json": msgspec.json.encode(reference, order="sorted"),
        "metrics.json": msgspec.json.encode(metrics, order="sorted"),
    }
    manifest = Manifest(
        format=FORMAT,
        runtime=runtime,
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())},
    )
    contents["manifest.json"] = msgspec.json.encode(manifest)
    unfinished = directory.with_name(f"{directory.name}.{os.getpid()}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, data in contents.items():
        with (unfinished / name).open("wb") as file:
            file.write(data)
            # Renaming is durable before the bytes are: after a power cut the directory could be there, and empty.
            os.fsync(file.fileno())
    _put_in_place(unfinished, directory)
    return _digest(contents["manifest.json"])


def open_bundle(uri: str, digest: str) -> Bundle:
    """Reads a bundle and checks every byte before anything is used.

    Args:
        uri: `file://` or any other address that Arrow's file systems understand.
        digest: What the routing table says the bundle is.

    Raises:
        ArtifactInvalid: the bundle is missing, damaged, or another one.
    """
    try:
        system, root = fs.FileSystem.from_uri(uri)
        manifest_bytes = _read(system, f"{root}/manifest.json")
        if _digest(manifest_bytes) != digest:
            raise ArtifactInvalid(
                f"bundle {uri} is not the one asked for: its digest is {_digest(manifest_bytes)}, not {digest}. "
                "Restore it from the registry, or promote another version."
            )
        manifest = msgspec.json.decode(manifest_bytes, type=Manifest)
        if manifest.format != FORMAT:
            raise ArtifactInvalid(f"bundle {uri} has format {manifest.format}; this release reads {FORMAT}: retrain")
        contents = {name: _checked(system, root, uri, name, expected) for name, expected in manifest.files.items()}
        return Bundle(
            digest=digest,
            runtime=manifest.runtime,
            plan=msgspec.json.decode(contents["plan.json"], type=Plan),
            model=contents[MODEL_FILES[manifest.runtime]],
            reference=msgspec.json.decode(contents["reference.json"]),
            metrics=msgspec.json.decode(contents["metrics.json"], type=dict[str, float | None]),
        )
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        raise ArtifactInvalid(
            f"bundle {uri} cannot be read: {error}. Restore it, or promote another version."
        ) from error


def _put_in_place(unfinished: Path, directory: Path) -> None:
    """A directory is not replaced by renaming another one over it: the old one steps aside first."""
    aside = unfinished.with_suffix(".old")
    if directory.exists():
        directory.replace(aside)
    unfinished.replace(directory)
    shutil.rmtree(aside, ignore_errors=True)


def _read(system: fs.FileSystem, path: str) -> bytes:
    with system.open_input_stream(path) as stream:
        return bytes(stream.read())


def _checked(system: fs.FileSystem, root: str, uri: str, name: str, expected: str) -> bytes:
    if "/" in name or name.startswith("."):
        raise ArtifactInvalid(f"bundle {uri} names a file outside itself: {name!r}")
    data = _read(system, f"{root}/{name}")
    if hashlib.sha256(data).hexdigest() != expected:
        raise ArtifactInvalid(
            f"{name} of bundle {uri} was changed after it was written (its SHA-256 does not match the manifest). "
            "Restore it from the registry, or promote another version."
        )
    return data


def _digest(manifest: bytes) -> str:
    return "sha256:" + hashlib.sha256(manifest).hexdigest()
