"""Peer: LitServe behind HTTP, with its batching, and a bridge that reads Kafka and asks it. Ended from outside.

python scoring_litserve.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket

import aiohttp
import litserve
import numpy as np
from arguments import parsed
from confluent_kafka import Consumer, Producer
from network import session_of

IN_FLIGHT = 64


class Network(litserve.LitAPI):
    """The network as LitServe's documentation writes an API."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=IN_FLIGHT, batch_timeout=0.005)
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


async def bridge(bootstrap: str, source: str, sink: str, url: str) -> None:
    """Asks for each record, `IN_FLIGHT` at a time."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": sink, "auto.offset.reset": "earliest", "log_level": 3}
    )
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 3})
    consumer.subscribe([source])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        while True:
            try:
                async with session.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
        open_requests = asyncio.Semaphore(IN_FLIGHT)
        tasks = set()

        async def ask(record: object) -> None:
            event = json.loads(record.value())
            async with session.post(f"{url}/predict", json={"values": event["values"]}) as answer:
                score = (await answer.json())["score"]
            value = json.dumps({"event_id": event["event_id"], "score": score})
            producer.produce(sink, value, record.key())
            open_requests.release()

        while True:
            for record in consumer.consume(IN_FLIGHT, timeout=0):
                if record.error() is None:
                    await open_requests.acquire()
                    task = asyncio.create_task(ask(record))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            producer.poll(0)
            await asyncio.sleep(0)


if __name__ == "__main__":
    given = parsed()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # No daemon: LitServe starts processes of its own.
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(given.model, port))
    server.start()
    asyncio.run(bridge(given.bootstrap, given.source, given.sink, f"http://127.0.0.1:{port}"))
