"""Peer: Triton Inference Server with dynamic batching, and a bridge that reads Kafka and asks it over gRPC. Ended from outside.

    python scoring_triton.py --bootstrap H:P --source T --sink T --model FILE

The server is the one inside `nvidia-pytriton`, the only one that installs without a container. It has no backend of its own
for ONNX, so the model runs in a Python process beside the server, as that package's documentation shows.
"""

from __future__ import annotations

import asyncio
import os
import sysconfig

import numpy as np
from arguments import parsed
from bridge import bridge
from network import session_of
from ports import free_ports
from pytriton.client import AsyncioModelClient
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MAX_BATCH = 256


async def ask_all(address: str, bootstrap: str, source: str, sink: str) -> None:
    """Scores each record."""
    async with AsyncioModelClient(address, "network") as client:

        async def ask(values: list[float]) -> float:
            return float((await client.infer_sample(rows=np.array(values, np.float32)))["scores"][0])

        await bridge(bootstrap, source, sink, ask)


if __name__ == "__main__":
    given = parsed()
    session = session_of(given.model)
    # The server starts an interpreter by its shared library, and must find the one of this environment.
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))

    @batch
    def score(rows: np.ndarray) -> dict:
        """Float32 (n, 30) in, (n, 1) out."""
        return {"scores": session.run(None, {"rows": rows})[0]}

    http, grpc, metrics = free_ports(3)
    places = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "metrics_address": "127.0.0.1"}
    with Triton(config=TritonConfig(http_port=http, grpc_port=grpc, metrics_port=metrics, **places)) as triton:
        triton.bind(
            model_name="network",
            infer_func=score,
            inputs=[Tensor(name="rows", dtype=np.float32, shape=(30,))],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=2_000)),
        )
        triton.run()
        asyncio.run(ask_all(f"grpc://127.0.0.1:{grpc}", given.bootstrap, given.source, given.sink))
