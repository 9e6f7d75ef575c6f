"""Peer: stock Faust with windowed tables, four tumbling windows and three aggregates each. Ended from outside.

    python windows_faust.py --bootstrap H:P --source T --sink T --directory FOLDER [--mode score --model FILE]

Tumbling windows are the cheapest that Faust has: hopping ones update a table once per hop. With `--mode score`
the agent also scores each event and puts out the score instead of the features.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import faust
import numpy as np
from arguments import parsed

SPANS_S = (60, 600, 3_600, 86_400)
given = parsed()
app = faust.App(
    given.sink,
    broker=f"kafka://{given.bootstrap}",
    store="memory://",
    datadir=given.directory,
    web_enabled=False,
    topic_partitions=4,
    consumer_auto_offset_reset="earliest",
)
source = app.topic(given.source, value_serializer="json")
sink = app.topic(given.sink, value_serializer="json")
tables = [
    app.Table(f"span_{span}", default=lambda: [0, 0.0], partitions=4).tumbling(
        timedelta(seconds=span), expires=timedelta(seconds=span)
    )
    for span in SPANS_S
]
session = None
if given.mode == "score":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])


def answer(event: dict, features: list[float]) -> dict:
    """What is put out for an event: its features, or its score."""
    if session is None:
        return {"event_id": event["payment_id"], "values": features}
    row = [event["amount"], *(event[f"x{n:02d}"] for n in range(17)), *features]
    found = session.run(None, {"rows": np.array([row], np.float32)})[0]
    return {"event_id": event["payment_id"], "score": float(found[0, 0])}


@app.agent(source)
async def features(stream):
    """Updates every window of the card, then puts out the twelve values."""
    async for event in stream:
        card, amount = event["card"], event["amount"]
        row = []
        for table in tables:
            count, total = table[card].current()
            count, total = count + 1, total + amount
            table[card] = [count, total]
            row += [count, total, total / count]
        await sink.send(key=card, value=answer(event, row))


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--loglevel", "warn"]
    app.main()
