"""Peer: Quix Streams, a StreamingDataFrame with one function that scores. Ended from outside.

python scoring_quix.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from arguments import parsed
from quixstreams import Application

given = parsed()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])


def score(event: dict) -> dict:
    """One row at a time: the framework hands over nothing else."""
    found = session.run(None, {"rows": np.array([event["values"]], np.float32)})[0]
    return {"event_id": event["event_id"], "score": float(found[0, 0])}


app = Application(
    broker_address=given.bootstrap,
    consumer_group=given.sink,
    auto_offset_reset="earliest",
    state_dir=given.directory,
    loglevel="WARNING",
)
source = app.topic(given.source, value_deserializer="json")
sink = app.topic(given.sink, value_serializer="json")
stream = app.dataframe(source)
stream = stream.apply(score).to_topic(sink)
if __name__ == "__main__":
    app.run()
