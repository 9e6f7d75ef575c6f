"""The online store: rows in Redis, in Feast's byte format, read and written by the batch.

Feast's own client makes Python objects per value and reads some 9,000 rows per second; this reader
and writer moves columns, on the same bytes. See `feast_bytes` for the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from tailrace.backends.feast_bytes import (
    decode_timestamps,
    decode_values,
    encode_timestamp,
    encode_values,
    entity_keys,
    hash_fields,
)
from tailrace.backends.ports import ReadRequest, Rows
from tailrace.backends.redis import address, client
from tailrace.backends.settings import Settings
from tailrace.errors import StoreUnavailable

# Feast's own guard reads, compares and writes in three steps, which lets an older row win when two
# writers meet (a fenced worker that has not noticed, and its successor). A script is one step.
# Timestamps are compared as Feast stores them, so rows that Feast wrote count too. Arguments: number
# of columns, name of the timestamp, name of the state ("" for none), names of the columns; then for
# each key timestamp, values (9 bytes each, all zero for null) and state, where there is one.
_WRITE_UNLESS_OLDER = """
local function millis(text)
  local seconds, nanos, at = 0, 0, 1
  while at <= #text do
    local tag, value, scale = string.byte(text, at), 0, 1
    repeat
      at = at + 1
      local byte = string.byte(text, at) or 0
      value = value + (byte % 128) * scale
      scale = scale * 128
    until byte < 128
    at = at + 1
    if tag == 8 then seconds = value elseif tag == 16 then nanos = value end
  end
  return seconds * 1000 + math.floor(nanos / 1000000)
end
local byte, sub, call = string.byte, string.sub, redis.call
local columns, stamp, state = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local fields, last = {}, 2 * columns + 2
for at = 1, columns do fields[2 * at - 1] = ARGV[3 + at] end
fields[last - 1] = stamp
if state ~= '' then
  fields[last + 1] = state
  last = last + 2
end
local at = 4 + columns
for row = 1, #KEYS do
  local written, values = ARGV[at], ARGV[at + 1]
  local stored = call('HGET', KEYS[row], stamp)
  if not stored or stored == written or millis(stored) <= millis(written) then
    for column = 1, columns do
      local from = 9 * column - 8
      fields[2 * column] = byte(values, from) == 0 and '' or sub(values, from, from + 8)
    end
    fields[2 * columns + 2] = written
    if state ~= '' then fields[last] = ARGV[at + 2] end
    call('HSET', KEYS[row], unpack(fields, 1, last))
  end
  at = at + (state ~= '' and 3 or 2)
end
return 1
"""
_ROWS = 128
"""Rows per call of the script: what a call costs is spread, and the store is never held up for longer than ~2 ms."""
_SCRIPT = hashlib.sha1(_WRITE_UNLESS_OLDER.encode(), usedforsecurity=False).hexdigest()


class RedisOnlineStore:
    """`ports.OnlineStore` on Redis; thread-safe, blocks for at most the time-out of the settings.

    Nothing is tried again here: a retry inside a time-out stretches it many times over. The caller
    knows whether to wait, to serve defaults or to give up.

    Args:
        settings: Address and time-out of the store.
    """

    def __init__(self, settings: Settings) -> None:
        self._address = address(settings)
        self._client = client(settings, timeout_s=settings.redis_timeout_ms / 1_000)
        self._fields: dict[tuple[str, tuple[str, ...]], list[bytes]] = {}

    def write(
        self,
        view: str,
        entity: str,
        columns: Sequence[str],
        keys: Sequence[str],
        values: NDArray[np.float64],
        timestamps_ms: NDArray[np.int64],
        state: Sequence[bytes] | None = None,
    ) -> None:
        """Writes rows in one round trip; a key's last occurrence wins, and never an older row over a newer.

        Args:
            view: Feature view.
            entity: Its join key.
            columns: Its d columns.
            keys: n join key values.
            values: float64 (n, d), NaN is stored as null.
            timestamps_ms: int64 (n,), epoch milliseconds; negative ones count as 0.
            state: The view's packed state per key.

        Raises:
            StoreUnavailable: nothing can be said about the rows; write them again.
        """
        last = {key: at for at, key in enumerate(keys)}
        if not last:
            return
        rows = np.fromiter(last.values(), np.int64, len(last))
        *names, stamp_name, state_name = self._names(view, columns)
        cells = encode_values(np.asarray(values, np.float64)[rows])
        stamps = [encode_timestamp(at) for at in np.maximum(np.asarray(timestamps_ms)[rows], 0).tolist()]
        states = None if state is None else [state[at] for at in rows.tolist()]
        places = entity_keys(entity, list(last))
        head = [len(names), stamp_name, b"" if states is None else state_name, *names]
        each = (stamps, cells) if states is None else (stamps, cells, states)
        self._write(places, head, each)

    def read(self, requests: Sequence[ReadRequest]) -> list[Rows]:
        """Reads all requests in one round trip, each in the order of its keys.

        Raises:
            StoreUnavailable: the store did not answer within its time-out.
        """
        return self.ask(requests)()

    def ask(self, requests: Sequence[ReadRequest]) -> Callable[[], list[Rows]]:
        """Sends the commands of `read`, and gives the call that reads the replies; see `ports.OnlineStore.ask`."""
        wanted: list[list[str]] = []
        commands: list[bytes] = []
        for request in requests:
            distinct = list(dict.fromkeys(request.keys))
            wanted.append(distinct)
            commands += _packed_reads(entity_keys(request.entity, distinct), self._names(request.view, request.columns))
        answer = self._send(commands) if commands else list

        def read() -> list[Rows]:
            replies = iter(answer())
            return [
                _rows(request, distinct, list(islice(replies, len(distinct))))
                for request, distinct in zip(requests, wanted, strict=True)
            ]

        return read

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _write(self, places: list[bytes], head: list[Any], columns: tuple[list[bytes], ...]) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        # Loading the script along with each write costs 20 us and spares a second round trip after
        # the store was restarted.
        pipe.execute_command("SCRIPT LOAD", _WRITE_UNLESS_OLDER)
        for begin in range(0, len(places), _ROWS):
            part = slice(begin, begin + _ROWS)
            arguments = chain.from_iterable(zip(*(column[part] for column in columns), strict=True))
            pipe.execute_command("EVALSHA", _SCRIPT, len(places[part]), *places[part], *head, *arguments)
        self._execute(pipe)

    def _names(self, view: str, columns: Sequence[str]) -> list[bytes]:
        at = (view, tuple(columns))
        if at not in self._fields:
            self._fields[at] = hash_fields(view, columns)
        return self._fields[at]

    def _execute(self, pipe: Any) -> list[Any]:
        try:
            replies: list[Any] = pipe.execute()
        except redis.RedisError as error:
            raise self._unavailable(error) from error
        return replies

    def _send(self, commands: list[bytes]) -> Callable[[], list[Any]]:
        """Sends packed commands; reads as many replies when called. A pipeline of the client takes twice as long."""
        pool = self._client.connection_pool
        connection: Any = None

        @contextmanager
        def unless_it_fails() -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                if connection is not None:
                    # Replies that were not read would be taken for those of the next caller.
                    connection.disconnect()
                    pool.release(connection)
                if isinstance(error, redis.RedisError):
                    raise self._unavailable(error) from error
                raise

        with unless_it_fails():
            connection = pool.get_connection()
            connection.send_packed_command([b"".join(commands)])

        def replies() -> list[Any]:
            with unless_it_fails():
                found = [connection.read_response(disable_decoding=True) for _ in commands]
            pool.release(connection)
            return found

        return replies

    def _unavailable(self, error: redis.RedisError) -> StoreUnavailable:
        return StoreUnavailable(
            f"the online store at {self._address} did not answer; check it with `tailrace doctor`: {error}"
        )


def _packed_reads(keys: Sequence[bytes], fields: Sequence[bytes]) -> list[bytes]:
    """HMGET of the same fields for each key, as it goes over the wire."""
    head = b"*%d\r\n$5\r\nHMGET\r\n$" % (2 + len(fields))
    tail = b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
    return [b"%b%d\r\n%b%b" % (head, len(key), key, tail) for key in keys]


def _rows(request: ReadRequest, distinct: list[str], replies: list[list[bytes | None]]) -> Rows:
    d = len(request.columns)
    cells = [cell for reply in replies for cell in reply[:d]]
    values = decode_values(cells).reshape(len(distinct), d)
    stamps = decode_timestamps([reply[d] for reply in replies])
    position = {key: at for at, key in enumerate(distinct)}
    back = np.fromiter((position[key] for key in request.keys), np.int64, len(request.keys))
    # A hash is shared by all views of an entity: without a timestamp this view has no row.
    values[stamps < 0] = np.nan
    state = [replies[at][d + 1] for at in back.tolist()]
    return Rows(values[back], stamps[back], state)
