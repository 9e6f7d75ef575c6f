"""Peer: Quix Streams with four tumbling windows, three aggregates each; four records per event. Ended from outside.

    python windows_quix.py --bootstrap H:P --source T --sink T --directory FOLDER

`current` emits with each event; tumbling windows are the cheapest that emit so.
"""

from __future__ import annotations

from datetime import timedelta

from quix_app import app, sink, stream
from quixstreams.dataframe.windows import Count, Mean, Sum
from sliding import SPANS_MS

for span in SPANS_MS:
    window = stream.tumbling_window(timedelta(milliseconds=span))
    window.agg(count=Count(), sum=Sum("amount"), mean=Mean("amount")).current().to_topic(sink)
if __name__ == "__main__":
    app.run()
