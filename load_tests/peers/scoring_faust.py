"""Peer: an agent of stock Faust, as its documentation shows one; scores each event, or each `take`.

    python scoring_faust.py … --mode agent | take | latency

`agent` and `take` read `values` of FEATURES; `latency` reads the numbers of an event. It is ended from outside.
"""

from __future__ import annotations

import numpy as np
from faust_app import app, given, main, sink, source
from network import session_of

session = session_of(given.model)


def numbers(event: dict) -> list[float]:
    """Thirty numbers of an event; it has eighteen."""
    return [event["amount"], *(event[f"x{n:02d}"] for n in range(17)), *[0.0] * 12]


if given.mode == "agent":

    @app.agent(source)
    async def score(stream):
        """Per-event scoring."""
        async for key, event in stream.items():
            found = session.run(None, {"rows": np.array([event["values"]], np.float32)})[0]
            await sink.send(key=key, value={"event_id": event["event_id"], "score": float(found[0, 0])})

elif given.mode == "take":

    @app.agent(source)
    async def score(stream):
        """Scoring by batches of up to 256, or 50 ms."""
        async for events in stream.take(256, within=0.05):
            found = session.run(None, {"rows": np.array([event["values"] for event in events], np.float32)})[0]
            for event, p in zip(events, found[:, 0].tolist(), strict=True):
                await sink.send(key=event["key"], value={"event_id": event["event_id"], "score": p})

else:

    @app.agent(source)
    async def score(stream):
        """Per-event scoring of the numbers of the event itself."""
        async for event in stream:
            found = session.run(None, {"rows": np.array([numbers(event)], np.float32)})[0]
            answer = {"event_id": event["payment_id"], "score": float(found[0, 0])}
            await sink.send(key=event["card"], value=answer)


if __name__ == "__main__":
    main()
