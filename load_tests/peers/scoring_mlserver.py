"""Peer: MLServer with its Kafka door and adaptive batching; the source holds requests of its own protocol. Ended from outside.

    python scoring_mlserver.py --bootstrap H:P --source T --sink T --model FILE --directory FOLDER

It reads from the end of the source on, so the source is filled once it is up.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from arguments import parsed
from ports import free_ports

if __name__ == "__main__":
    given = parsed()
    http, grpc, metrics = free_ports(3)
    folder = Path(given.directory).resolve()
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,  # the faster of the two, and one process as with all peers
        "debug": False,
        "kafka_enabled": True,
        "kafka_servers": given.bootstrap,
        "kafka_topic_input": given.source,
        "kafka_topic_output": given.sink,
    }
    model = {
        "name": "network",
        "implementation": "mlserver_network.Network",
        "parameters": {"uri": str(Path(given.model).resolve())},
        "max_batch_size": 256,
        "max_batch_time": 0.02,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])
