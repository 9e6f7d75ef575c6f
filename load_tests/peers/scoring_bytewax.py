"""Peer: a Bytewax dataflow that scores whole batches with `flat_map_batch`. Ended from outside.

python scoring_bytewax.py --bootstrap H:P --source T --sink T --model FILE
"""

from __future__ import annotations

import json

import bytewax.operators as op
import numpy as np
from arguments import parsed
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from network import session_of

given = parsed()
session = session_of(given.model)


def score(messages: list) -> list[KafkaSinkMessage]:
    """One run of the model for what came together."""
    events = [json.loads(message.value) for message in messages]
    found = session.run(None, {"rows": np.array([event["values"] for event in events], np.float32)})[0][:, 0].tolist()
    return [
        KafkaSinkMessage(message.key, json.dumps({"event_id": event["event_id"], "score": p}).encode())
        for message, event, p in zip(messages, events, found, strict=True)
    ]


flow = Dataflow("scoring")
taken = kop.input("taken", flow, brokers=[given.bootstrap], topics=[given.source])
scored = op.flat_map_batch("scored", taken.oks, score)
kop.output("sent", scored, brokers=[given.bootstrap], topic=given.sink)
if __name__ == "__main__":
    run_main(flow)
