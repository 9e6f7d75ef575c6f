"""Environments of the peers, `.bench/<name>`, one each so that their dependencies cannot quarrel.

python -m load_tests.peers.environments [name…]      makes what is missing
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from load_tests.bench import Unavailable

FOLDER = Path(__file__).parents[2] / ".bench"
PACKAGES = {
    "faust": ["faust-streaming==0.15.3", "aiokafka[lz4,snappy,zstd]==0.14.0", "onnxruntime", "numpy"],
    "quix": ["quixstreams", "onnxruntime", "numpy"],
    "bytewax": ["bytewax[kafka]", "onnxruntime", "numpy"],
    "mlserver": ["mlserver", "aiokafka[lz4]", "onnxruntime", "numpy"],
    "litserve": ["litserve", "aiohttp", "confluent-kafka==2.15.1", "onnxruntime", "numpy"],
    "ray": ["ray[serve]", "aiohttp", "confluent-kafka==2.15.1", "onnxruntime", "numpy"],
    "triton": ["nvidia-pytriton", "confluent-kafka==2.15.1", "onnxruntime", "numpy"],
}
"""What each peer's own documentation says to install, and the runtime of the model."""


def python_of(environment: str) -> Path:
    """Interpreter of a peer.

    Raises:
        Unavailable: the environment was not made.
    """
    path = FOLDER / environment / "bin" / "python"
    if not path.exists():
        raise Unavailable(f"not installed: no .bench/{environment}; `make bench-peers` makes it")
    return path


def peer_versions() -> dict[str, str]:
    """Version of each peer that is installed, by the name of its environment."""
    found: dict[str, str] = {}
    for environment, packages in PACKAGES.items():
        name = packages[0].partition("[")[0].partition("=")[0]
        for site in (FOLDER / environment).glob("lib/python*/site-packages"):
            found |= {
                f"peer {environment}": d.version for d in importlib.metadata.distributions(name=name, path=[str(site)])
            }
    return found


def make(environment: str) -> str:
    """Makes an environment that is not there yet; returns why it could not be made, "" when it is there."""
    folder = FOLDER / environment
    if (folder / "bin" / "python").exists():
        return ""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    steps = (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *PACKAGES[environment]],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True)
        except OSError as error:
            return f"uv cannot be run: {error}"
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            return done.stderr.strip()[-400:]
    return ""


def main(names: list[str]) -> int:
    """Makes environments; those that cannot be made are named, and their peers are left out of the scenarios."""
    console = Console(stderr=True)
    for name in names or list(PACKAGES):
        console.print(f"[dim].bench/{name}: {' '.join(PACKAGES[name])}[/]")
        why = make(name)
        if why:
            console.print(f"[yellow].bench/{name} could not be made; its peer is left out: {why}[/]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
