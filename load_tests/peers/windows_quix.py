"""Peer: Quix Streams with four tumbling windows, three aggregates each; four records per event. Ended from outside.

    python windows_quix.py --bootstrap H:P --source T --sink T --directory FOLDER

`current` emits with each event; tumbling windows are the cheapest that emit so.
"""

from __future__ import annotations

from datetime import timedelta

from arguments import parsed
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Mean, Sum

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
for seconds in (60, 600, 3_600, 86_400):
    window = stream.tumbling_window(timedelta(seconds=seconds))
    window.agg(count=Count(), sum=Sum("amount"), mean=Mean("amount")).current().to_topic(sink)
if __name__ == "__main__":
    app.run()
