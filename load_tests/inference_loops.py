"""Hand-written loops beside which inference is measured: `python -m load_tests.inference_loops <loop> <source> <sink>`."""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any

import msgspec
import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray

from load_tests import workload
from load_tests.peers.network import session_of
from load_tests.streams import PARTITIONS
from tailrace.backends.settings import load_settings
from tailrace.contracts.records import Prediction

CUT_S = 0.1


class Row(msgspec.Struct, frozen=True, gc=False):
    """What a loop that trusts its input needs of a `FeatureRow`."""

    event_id: str
    event_time_ms: int
    key: str
    entities: msgspec.Raw
    slices: msgspec.Raw
    values: list[float | None]
    source: msgspec.Raw
    produced_at_ms: int


def reader(bootstrap: str, group: str, topic: str) -> Consumer:
    """A consumer with all partitions of a topic, fetching far ahead."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 100_000,
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
        }
    )
    client.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    return client


def writer(bootstrap: str, **options: Any) -> Producer:
    """An idempotent producer."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
            **options,
        }
    )


def speed_of_light(bootstrap: str, features: str, predictions: str, *, whole: bool = True) -> None:
    """As fast as a batched loop in Python gets that trusts all it reads; transactional.

    It writes the whole `Prediction`, or event id and score alone.

    No duplicates are looked for, nothing is validated beyond its type, one model, no metrics, no control. Text that
    the prediction repeats is never decoded, what is constant is encoded once, and the matrix becomes JSON whole.
    """
    gc.disable()
    session = session_of(workload.network())
    source = reader(bootstrap, predictions, features)
    sink = writer(bootstrap, **{"transactional.id": predictions})
    sink.init_transactions(30)
    sink.begin_transaction()
    decoder = msgspec.json.Decoder(list[Row])
    cut_at = time.monotonic() + CUT_S
    while True:
        records = [record for record in source.consume(4_000, timeout=0.01) if record.error() is None]
        if records:
            rows = decoder.decode(b"[" + b",".join([record.value() for record in records]) + b"]")
            matrix = np.fromiter(chain.from_iterable([row.values for row in rows]), np.float32).reshape(len(rows), -1)
            scores = session.run(None, {"rows": matrix})[0].ravel().tolist()
            values = written(rows, matrix, scores) if whole else written_bare(rows, scores)
            for record, value in zip(records, values, strict=True):
                sink.produce(predictions, value, record.key(), record.partition())
        sink.poll(0)
        if time.monotonic() > cut_at:
            sink.send_offsets_to_transaction(source.position(source.assignment()), source.consumer_group_metadata(), 30)
            sink.commit_transaction(30)
            sink.begin_transaction()
            cut_at = time.monotonic() + CUT_S


def written(rows: list[Row], matrix: NDArray[np.float32], scores: list[float]) -> list[bytes]:
    """Predictions as JSON."""
    lines = msgspec.json.Encoder().encode_lines
    now_ms = time.time_ns() // 1_000_000
    ids = lines([row.event_id for row in rows]).split(b'"\n')
    parts: list[bytes | Iterable[bytes]] = [
        b'{"prediction_id":',
        ids,
        b':champion","event_id":',
        ids,
        b'","use_case":"uc","key":',
        lines([row.key for row in rows]).split(b"\n"),
        b',"entities":',
        [row.entities for row in rows],
        b',"slices":',
        [row.slices for row in rows],
        b',"event_time_ms":',
        lines([row.event_time_ms for row in rows]).split(b"\n"),
        b',"predicted_at_ms":%d,"variant":"champion","model_version":"1","model_digest":"sha256:%064d","epoch":1,"score":'
        % (now_ms, 0),
        lines(scores).split(b"\n"),
        b',"decision":',
        [b"true" if score >= 0.5 else b"false" for score in scores],
        b',"threshold":0.5,"propensity":1.0,"features":[',
        orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],["),
        b'],"ages_ms":{},"fingerprint":"0123456789abcdef","degraded":[],"source":',
        [row.source for row in rows],
        b',"produced_at_ms":',
        lines([row.produced_at_ms for row in rows]).split(b"\n"),
        b',"activated":true,"blocked":false}',
    ]
    columns = [repeat(part) if isinstance(part, bytes) else part for part in parts]
    return list(map(b"".join, zip(*columns, strict=False)))


def written_bare(rows: list[Row], scores: list[float]) -> list[str]:
    """Event id and score as JSON."""
    return [f'{{"event_id":"{row.event_id}","score":{score:.9g}}}' for row, score in zip(rows, scores, strict=True)]


def naive(bootstrap: str, features: str, predictions: str) -> None:
    """The loop most people write first: poll, `json`, one model run and one produce per event, at least once."""
    session = session_of(workload.network())
    source = reader(bootstrap, predictions, features)
    sink = writer(bootstrap)
    while True:
        record = source.poll(0.1)
        if record is None or record.error():
            continue
        row = json.loads(record.value())
        values = np.array([row["values"]], dtype=np.float32)
        score = float(session.run(None, {"rows": values})[0][0, 0])
        prediction = Prediction(
            prediction_id=f"{row['event_id']}:champion",
            event_id=row["event_id"],
            use_case="uc",
            key=row["key"],
            entities=row["entities"],
            slices=row["slices"],
            event_time_ms=row["event_time_ms"],
            predicted_at_ms=time.time_ns() // 1_000_000,
            variant="champion",
            model_version="1",
            model_digest="sha256:0",
            epoch=1,
            score=score,
            decision=score >= 0.5,
            threshold=0.5,
            propensity=1.0,
            features=values[0].tolist(),
            ages_ms={},
            fingerprint="0",
            degraded=[],
            source=row["source"],
            produced_at_ms=row["produced_at_ms"],
        )
        value = json.dumps(msgspec.to_builtins(prediction)).encode()
        sink.produce(predictions, value, record.key(), record.partition())
        sink.poll(0)


LOOPS: dict[str, Callable[[str, str, str], None]] = {
    "speed_of_light": speed_of_light,
    "speed_of_light_bare": functools.partial(speed_of_light, whole=False),
    "naive": naive,
}

if __name__ == "__main__":
    LOOPS[sys.argv[1]](load_settings().kafka_bootstrap, sys.argv[2], sys.argv[3])
