"""Hand-written loops beside which inference is measured. Each runs in a process of its own."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from tailrace.contracts.records import Prediction, Source

CUT_S = 0.05


class Row(msgspec.Struct, frozen=True, gc=False):
    """What a loop that trusts its input needs of a `FeatureRow`."""

    event_id: str
    event_time_ms: int
    key: str
    entities: msgspec.Raw
    slices: msgspec.Raw
    values: list[float | None]
    source: Source
    produced_at_ms: int


def session_of(model: bytes) -> ort.InferenceSession:
    """The model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def reader(bootstrap: str, group: str, topic: str, partitions: int) -> Consumer:
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
        }
    )
    client.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
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


def speed_of_light(
    bootstrap: str, features: str, predictions: str, partitions: int, model: bytes, *, transactions: bool = True
) -> None:
    """As fast as a batched loop in Python gets that writes the whole `Prediction`, trusting all it reads.

    No duplicates are looked for, nothing is validated beyond its type, one model, no metrics, no control. Text that
    the prediction repeats is never decoded, what is constant is encoded once, and the matrix becomes JSON whole.
    """
    session = session_of(model)
    source = reader(bootstrap, f"{features}.light", features, partitions)
    sink = writer(bootstrap, **({"transactional.id": f"{features}.light"} if transactions else {}))
    if transactions:
        sink.init_transactions(30)
        sink.begin_transaction()
    decoder = msgspec.json.Decoder(list[Row])
    encode = msgspec.json.Encoder().encode
    cut_at = time.monotonic() + CUT_S
    ends: dict[int, int] = {}
    while True:
        records = [r for r in source.consume(4_000, timeout=0.01) if r.error() is None]
        if records:
            rows = decoder.decode(b"[" + b",".join([record.value() for record in records]) + b"]")
            matrix = np.array([row.values for row in rows], dtype=np.float32)
            scores = session.run(None, {"rows": matrix})[0].ravel()
            texts = orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
            now_ms = time.time_ns() // 1_000_000
            middle = (
                f',"predicted_at_ms":{now_ms},"variant":"champion","model_version":"1","model_digest":"sha256:0","epoch":1'
                ',"score":'
            )
            for record, row, score, text in zip(records, rows, scores.tolist(), texts, strict=True):
                value = (
                    f'{{"prediction_id":"{row.event_id}:champion","event_id":"{row.event_id}","use_case":"uc",'
                    f'"key":"{row.key}","entities":{bytes(row.entities).decode()},'
                    f'"slices":{bytes(row.slices).decode()},"event_time_ms":{row.event_time_ms}{middle}{score!r},'
                    f'"decision":{"true" if score >= 0.5 else "false"},"threshold":0.5,"propensity":1.0,'
                    f'"features":[{text.decode()}],"ages_ms":{{}},"fingerprint":"0","degraded":[],'
                    f'"source":{encode(row.source).decode()},"produced_at_ms":{row.produced_at_ms},'
                    '"activated":true,"blocked":false}'
                )
                sink.produce(predictions, value, record.key(), record.partition())
            for record in records:
                ends[record.partition()] = record.offset() + 1
        sink.poll(0)
        if time.monotonic() > cut_at and ends:
            if transactions:
                offsets = [TopicPartition(features, partition, offset) for partition, offset in ends.items()]
                sink.send_offsets_to_transaction(offsets, source.consumer_group_metadata(), 30)
                sink.commit_transaction(30)
                sink.begin_transaction()
            cut_at = time.monotonic() + CUT_S


def naive(bootstrap: str, features: str, predictions: str, partitions: int, model: bytes) -> None:
    """The loop most people write first: poll, `json`, one model run and one produce per event, at least once."""
    session = session_of(model)
    source = reader(bootstrap, f"{features}.naive", features, partitions)
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
