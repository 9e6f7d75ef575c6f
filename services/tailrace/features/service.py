"""The features service: Faust shell around `FeatureProcessor`."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from typing import Any

import faust

from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import MAX_MESSAGE_BYTES, admin, partitions_of
from tailrace.backends.ports import OnlineStore
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.features.shell import Shell
from tailrace.features.transport import FetchApp
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

MAX_FETCH = 16_000
"""Records taken at once where so many wait. A key that comes up often is then written once instead of many times."""
SESSION_S = 10.0
"""Silence after which the group takes a worker for dead and others take its partitions over. Faust's 60 s would be
waited for in full; a worker that is back within it goes on with its own partitions, whatever the others do."""
GC_EVERY = 50_000
"""Allocations between two looks of the garbage collector. A fetch makes a few objects per record, none in a cycle."""
SWITCH_S = 0.000_5
"""How long a thread may keep the interpreter from another. Fetching, computing and delivering take turns by the
fetch; at Python's 5 ms each turn is waited for longer than it takes."""


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore | None = None) -> None:
    """Computes features until the service is asked to stop.

    How a fetch becomes durable (at least once, state exactly once):
      1. records are decoded and windows updated, in order within each partition;
      2. rows are written to the online store, acknowledged, tried again until they are;
      3. FEATURES records are produced to the partition of their event;
      4. at a commit, the state of every changed key is taken, then produced to the changelog, once;
      5. everything produced until then is flushed and acknowledged;
      6. the offsets of 4 are committed, transaction markers included.
    One thread does 1 and takes the states, another the rest, in the same order; so the next fetch is
    computed while the rows of this one travel, and steps 5 and 6 hold nothing up.
    A crash before 6 brings the same records again: state that already holds an offset does not change,
    and the FEATURES records come out as before; inference drops them by their source offset.

    Args:
        settings: Places and sizes.
        use_case: What is computed.
        lifecycle: What the process is told, and tells.
        store: Where rows are written; None: the online store of the settings.

    Raises:
        Fatal: going on would break a guarantee.
    """
    gc.freeze()
    gc.set_threshold(GC_EVERY, 20, 100)
    sys.setswitchinterval(SWITCH_S)
    asyncio.run(_serve(settings, use_case, lifecycle, store or RedisOnlineStore(settings)))


async def _serve(settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore) -> None:
    client = admin(settings)
    shell = Shell(settings, use_case, lifecycle, store, partitions=len(partitions_of(client, use_case.requests.name)))
    for topic in shell.processor.subscriptions:
        # Faust would wait for a topic that it may not see, and not end when asked to.
        partitions_of(client, topic)
    app = _app(settings, use_case, shell)
    await app.start()
    try:
        while not lifecycle.stopping.is_set() and shell.failure is None and not app.should_stop:
            await asyncio.sleep(0.05)
    finally:
        await shell.settle()
        await app.stop()
        shell.close()
    if shell.failure is not None:
        raise shell.failure
    if not lifecycle.stopping.is_set():
        raise BrokerUnavailable("Faust has stopped by itself; its log says why, and the service starts anew")


def _app(settings: Settings, use_case: UseCase, shell: Shell) -> FetchApp:
    group = Topics(use_case.name).group("features")
    data = settings.state_dir / "faust" / group
    data.mkdir(parents=True, exist_ok=True)
    app = FetchApp(
        group,
        broker=";".join(f"kafka://{address.strip()}" for address in settings.kafka_bootstrap.split(",")),
        broker_credentials=_credentials(settings),
        broker_max_poll_records=MAX_FETCH,
        broker_session_timeout=SESSION_S,
        consumer_group_instance_id=f"{group}.{settings.instance}",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_MESSAGE_BYTES,
        processing_guarantee="at_least_once",
        datadir=str(data),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        autodiscover=False,
        origin="tailrace.features",
    )
    app.fetch_sink = shell
    shell.app = app
    fetches = app.topic(*shell.processor.subscriptions, value_serializer="raw", key_serializer="raw")

    @app.agent(fetches, name="features")
    async def features(stream: Any) -> None:
        async for fetch in stream:
            await shell.take(fetch)

    return app


def _credentials(settings: Settings) -> Any:
    tls = settings.kafka_security.endswith("SSL")
    context = ssl.create_default_context(cafile=settings.kafka_ca or None) if tls else None
    if settings.kafka_security.startswith("SASL_"):
        # With a context Faust speaks SASL_SSL, without one SASL_PLAINTEXT.
        return faust.SASLCredentials(
            mechanism="SCRAM-SHA-512",
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
