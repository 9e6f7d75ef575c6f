"""A stock Faust app with the topics of the command line."""

from __future__ import annotations

import sys

import faust
from arguments import parsed

given = parsed()
app = faust.App(
    given.sink,
    broker=f"kafka://{given.bootstrap}",
    store="memory://",
    datadir=given.directory,
    web_enabled=False,
    topic_partitions=4,
    consumer_auto_offset_reset="earliest",
)
source = app.topic(given.source, value_serializer="json")
sink = app.topic(given.sink, value_serializer="json")


def main() -> None:
    """Runs a worker."""
    sys.argv = [sys.argv[0], "worker", "--loglevel", "warn"]
    app.main()
