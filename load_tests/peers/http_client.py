"""Asking a model server over HTTP."""

from __future__ import annotations

import asyncio

import aiohttp
from bridge import IN_FLIGHT, bridge


async def bridge_http(bootstrap: str, source: str, sink: str, url: str, ready: str) -> None:
    """Waits until `ready` answers, then asks `url` for each record: values in, score out, as JSON."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        while True:
            try:
                async with session.get(ready) as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)

        async def ask(values: list[float]) -> float:
            async with session.post(url, json={"values": values}) as answer:
                answer.raise_for_status()
                return (await answer.json())["score"]

        await bridge(bootstrap, source, sink, ask)
