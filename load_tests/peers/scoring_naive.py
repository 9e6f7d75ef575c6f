"""Reference: the loop that everybody writes first. Polls one record, `json.loads`, scores one row, produces one.

python scoring_naive.py --bootstrap H:P --source T --sink T --model FILE --events N
"""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
from arguments import parsed
from confluent_kafka import Consumer, Producer

given = parsed()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])
consumer = Consumer(
    {"bootstrap.servers": given.bootstrap, "group.id": given.sink, "auto.offset.reset": "earliest", "log_level": 3}
)
producer = Producer({"bootstrap.servers": given.bootstrap, "linger.ms": 5, "log_level": 3})
consumer.subscribe([given.source])
done = 0
while done < given.events:
    record = consumer.poll(1.0)
    if record is None or record.error():
        continue
    event = json.loads(record.value())
    row = np.array([event["values"]], np.float32)
    score = float(session.run(None, {"rows": row})[0][0, 0])
    value = json.dumps({"event_id": event["event_id"], "score": score})
    producer.produce(given.sink, value, record.key(), partition=record.partition())
    producer.poll(0)
    done += 1
producer.flush()
consumer.close()
