"""Peer: LitServe behind HTTP, with its batching, and a bridge that reads Kafka and asks it. Ended from outside.

python scoring_litserve.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import asyncio
import multiprocessing

import litserve
import numpy as np
from arguments import parsed
from http_client import bridge_http
from network import session_of
from ports import free_ports

MAX_BATCH = 64


class Network(litserve.LitAPI):
    """The network as LitServe's documentation writes an API."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=0.005)
        self._model = model

    def setup(self, device: str) -> None:
        """Opens the model in the worker."""
        self._session = session_of(self._model)

    def decode_request(self, request: dict) -> np.ndarray:
        """One row."""
        return np.array(request["values"], np.float32)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """A batch of rows, stacked by the framework."""
        return self._session.run(None, {"rows": rows})[0][:, 0]

    def encode_response(self, score: float) -> dict:
        """One score."""
        return {"score": float(score)}


def serve(model: str, port: int) -> None:
    """Runs the server."""
    server = litserve.LitServer(Network(model), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    given = parsed()
    [port] = free_ports(1)
    # No daemon: LitServe starts processes of its own.
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(given.model, port))
    server.start()
    url = f"http://127.0.0.1:{port}"
    asyncio.run(bridge_http(given.bootstrap, given.source, given.sink, f"{url}/predict", f"{url}/health"))
