"""Peer: Bytewax with a `stateful_map` of exact sliding windows. Ended from outside.

    python windows_bytewax.py --bootstrap H:P --source T --sink T

Its own window operators emit when a window closes; a row as of each event needs the state of one's own.
"""

from __future__ import annotations

import json

import bytewax.operators as op
from arguments import parsed
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from sliding import Card

given = parsed()


def keyed(message: object) -> tuple[str, dict]:
    """An event under its card."""
    event = json.loads(message.value)
    return event["card"], event


def features(state: Card | None, event: dict) -> tuple[Card, dict]:
    """Twelve values as of the event."""
    state = state or Card()
    return state, {"event_id": event["payment_id"], "values": state.add(event["at_ms"], event["amount"])}


def sent(item: tuple[str, dict]) -> KafkaSinkMessage:
    """A record."""
    return KafkaSinkMessage(item[0].encode(), json.dumps(item[1]).encode())


flow = Dataflow("windows")
taken = kop.input("taken", flow, brokers=[given.bootstrap], topics=[given.source])
events = op.map("keyed", taken.oks, keyed)
rows = op.stateful_map("features", events, features)
kop.output("sent", op.map("record", rows, sent), brokers=[given.bootstrap], topic=given.sink)
if __name__ == "__main__":
    run_main(flow)
