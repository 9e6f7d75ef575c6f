"""The daily commands on a live system."""

from __future__ import annotations

import json
import threading

from live_loop import CALM_DAYS, Loop

from tailrace.backends.kafka import producer
from tailrace.testing.streams import DAY_MS, START_MS


def test_what_the_loop_knows_is_told(loop: Loop) -> None:
    models = json.loads(loop.command("models", "--json"))
    assert ["champion"] == [model["role"] for model in models if model["role"] == "champion"]
    assert all(gate["passed"] for gate in models[-1]["gates"])
    # Of the days before the first model, whichever days were played since.
    [default] = json.loads(loop.command("quality", "--variant", "default", "--json"))[-1:]
    assert ("all", True) == (default["version"], default["final"] > 1_000)
    assert 0.0 < default["log_loss"] < 0.5
    days = json.loads(loop.command("readings", "--json"))
    assert {"estimate", "provisional", "final"} <= set(days[0])
    told = [day["estimate"] for day in days if day["variant"] == "champion"]
    assert all(reading["withheld"] or reading["interval"][0] <= reading["value"] for reading in told)
    assert "provisional" in loop.command("readings", "--metric", "roc_auc", "-n", "2")
    assert "amount_eur" in {row["subject"] for row in json.loads(loop.command("drift", "--json"))}
    assert isinstance(json.loads(loop.command("alarms", "--json")), list)
    assert "version" in loop.command("models")
    assert isinstance(json.loads(loop.command("dead-letters", "list", "--json")), list)


def test_event_is_traced(loop: Loop) -> None:
    event_id = loop.events["transaction_id"][10].as_py()
    found = json.loads(loop.command("trace", event_id))
    assert event_id == found["event"]["transaction_id"] == found["predictions"][0]["event_id"]
    assert "final" == found["labels"][-1]["status"]
    assert "no such event" in loop.command("trace", "no such event", code=1)


def test_action_that_cannot_be_done_fails_in_words(loop: Loop) -> None:
    assert "'99' is not registered" in loop.command("promote", "99", "--reason", "why not", code=1)
    assert "at least 3 characters" in loop.command("retrain", "--reason", "x", code=1)
    assert "Input should be" in loop.command("tail", "nothing", code=1)


def test_tail_prints_what_comes(loop: Loop) -> None:
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(loop.command("tail", "predictions", "-n", "3")))
    reader.start()
    writer, number = producer(loop.settings), 0
    event = {
        name: column[0].as_py() for name, column in zip(loop.events.column_names, loop.events.columns, strict=True)
    }
    event["occurred_at_ms"] = START_MS + CALM_DAYS * DAY_MS - 1
    while reader.is_alive():
        # Until the reader stands at the end of the topic, what is sent goes by unseen.
        number += 1
        writer.produce(
            "payments.transactions", json.dumps(event | {"transaction_id": f"tail{number}"}), event["card_id"]
        )
        writer.flush(10)
        reader.join(0.2)
    lines = [json.loads(line) for line in said[0].splitlines()]
    assert ["tail"] * 3 == [line["event_id"][:4] for line in lines]


def test_console_prints_the_address_that_opens_it(loop: Loop) -> None:
    assert f"{loop.url}#token={loop.token}" == loop.command("console").strip().replace("/#", "/#")
