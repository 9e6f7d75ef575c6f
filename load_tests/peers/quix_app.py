"""A Quix application with the topics of the command line."""

from __future__ import annotations

from arguments import parsed
from quixstreams import Application

given = parsed()
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
