"""Peer: Ray Serve, one replica behind HTTP with `serve.batch`, and a bridge that reads Kafka and asks it. Ended from outside.

python scoring_ray.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import asyncio
import tempfile

import numpy as np
import ray
from arguments import parsed
from bridge import IN_FLIGHT
from http_client import bridge_http
from network import session_of
from ports import free_ports
from ray import serve
from starlette.requests import Request

MAX_BATCH = 64


@serve.deployment(num_replicas=1, max_ongoing_requests=2 * IN_FLIGHT, ray_actor_options={"num_cpus": 1})
class Network:
    """The network as Ray Serve's documentation writes a batched deployment."""

    def __init__(self, model: str) -> None:
        self._session = session_of(model)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.005)
    async def score(self, rows: list[list[float]]) -> list[float]:
        """Scores what batching has put together."""
        return self._session.run(None, {"rows": np.array(rows, np.float32)})[0][:, 0].tolist()

    async def __call__(self, request: Request) -> dict:
        """One row in, one score out; without a row: that it is there."""
        if request.method == "GET":
            return {}
        return {"score": await self.score((await request.json())["values"])}


if __name__ == "__main__":
    given = parsed()
    [port] = free_ports(1)
    # Paths of its sockets may not be longer than a hundred characters, so its folder is none of the run's.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(Network.bind(given.model))
            url = f"http://127.0.0.1:{port}/"
            asyncio.run(bridge_http(given.bootstrap, given.source, given.sink, url, url))
        finally:
            ray.shutdown()  # its servers keep files in the folder
