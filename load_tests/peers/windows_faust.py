"""Peer: stock Faust with windowed tables, four tumbling windows and three aggregates each. Ended from outside.

    python windows_faust.py --bootstrap H:P --source T --sink T --directory FOLDER [--mode score --model FILE]

Tumbling windows are the cheapest that Faust has: hopping ones update a table once per hop. With `--mode score`
the agent also scores each event and puts out the score instead of the features.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from faust_app import app, given, main, sink, source
from sliding import SPANS_MS

tables = [
    app.Table(f"span_{span}", default=lambda: [0, 0.0], partitions=4).tumbling(
        timedelta(milliseconds=span), expires=timedelta(milliseconds=span)
    )
    for span in SPANS_MS
]
session = None
if given.mode == "score":
    from network import session_of

    session = session_of(given.model)


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
    main()
