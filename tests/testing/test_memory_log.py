from __future__ import annotations

from aiokafka.partitioner import murmur2

from tailrace.backends.ports import Output
from tailrace.contracts.topics import TopicSpec
from tailrace.testing.memory_log import MemoryLog

TOPICS = [TopicSpec("plain"), TopicSpec("newest", partitions=1, compacted=True), TopicSpec("all", partitions=1)]


def log() -> MemoryLog:
    made = MemoryLog(TOPICS, 3, kept=["all"])
    made.subscribe("one", ["plain", "newest", "all"])
    made.subscribe("two", ["plain"])
    return made


def test_records_of_a_batch_go_by_their_partition_else_by_their_key_else_to_the_first() -> None:
    keys = [b"k%d" % at for at in range(40)]
    made = log()
    made.append(
        [
            *(Output("plain", key, key, at % 3 if at % 2 else None) for at, key in enumerate(keys)),
            Output("newest", b"k1", b"one"),
            Output("plain", None, b"keyless"),
        ],
        0,
    )
    expected: list[list[bytes]] = [[], [], []]
    for at, key in enumerate(keys):
        expected[at % 3 if at % 2 else (murmur2(key) & 0x7FFFFFFF) % 3].append(key)
    expected[0].append(b"keyless")
    assert expected == [[m.value for m in made.read("plain", number, 0, 99)] for number in range(3)]
    assert [b"one"] == [m.value for m in made.read("newest", 0, 0, 99)]


def test_records_keep_their_order_offsets_and_time_within_a_partition() -> None:
    made = log()
    made.append([Output("plain", b"k", b"%d" % at, 1) for at in range(3)], 7)
    made.append([Output("plain", b"k", None, 1, [("h", b"x")])], 8)
    found = made.read("plain", 1, 1, 10)
    assert [(1, b"1", 7), (2, b"2", 7), (3, None, 8)] == [(m.offset, m.value, m.timestamp_ms) for m in found]
    assert [("h", b"x")] == found[-1].headers
    assert 3 == made.written["plain"]


def test_what_every_group_has_passed_is_forgotten_and_no_more() -> None:
    made = log()
    made.append([Output("plain", b"k", b"%d" % at, 0) for at in range(5)], 0)
    made.commit("one", "plain", 0, 5, "")
    made.commit("two", "plain", 0, 2, "")
    made.trim()
    assert [2, 3, 4] == [message.offset for message in made.records("plain")]
    assert [b"4"] == [message.value for message in made.read("plain", 0, 4, 10)]


def test_a_compacted_topic_keeps_the_newest_of_each_key_and_no_tombstone() -> None:
    made = log()
    for key, value in ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"b", None)):
        made.append([Output("newest", key, value)], 0)
    made.commit("one", "newest", 0, 5, "")
    made.trim()
    assert {b"a": b"3", b"c": b"4"} == {message.key: message.value for message in made.records("newest")}
    made.append([Output("newest", b"a", b"5")], 0)
    assert [b"3", b"4", b"5"] == [message.value for message in made.records("newest")]


def test_a_topic_to_keep_keeps_everything() -> None:
    made = log()
    made.append([Output("all", b"k", b"1"), Output("all", b"k", b"2")], 0)
    made.commit("one", "all", 0, 2, "")
    made.trim()
    assert [b"1", b"2"] == [message.value for message in made.records("all")]
