"""Peer: Quix Streams, a StreamingDataFrame with one function that scores. Ended from outside.

python scoring_quix.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import numpy as np
from network import session_of
from quix_app import app, given, sink, stream

session = session_of(given.model)


def score(event: dict) -> dict:
    """One row at a time: the framework hands over nothing else."""
    found = session.run(None, {"rows": np.array([event["values"]], np.float32)})[0]
    return {"event_id": event["event_id"], "score": float(found[0, 0])}


stream = stream.apply(score).to_topic(sink)
if __name__ == "__main__":
    app.run()
