"""Load on a chat endpoint: so many connections, each asks again as soon as it has its answer; prints one JSON line.

`python tests/bench/chat_load.py URL MODEL CONNECTIONS SECONDS [KEY]`
"""

import asyncio
import json
import sys
import time
from collections import Counter

import aiohttp

BODY = {
    "messages": [
        {"role": "system", "content": "You are a support agent. " * 4},
        {"role": "user", "content": "Where is order 4711? I have been waiting for a week now. " * 3},
    ],
    "temperature": 0,
}


async def load(url: str, model: str, connections: int, seconds: float, key: str = "") -> dict[str, object]:
    body = json.dumps({"model": model, **BODY}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    times: list[float] = []
    statuses: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        until = time.perf_counter() + seconds

        async def ask() -> None:
            while time.perf_counter() < until:
                began = time.perf_counter()
                async with session.post(url, data=body) as response:
                    await response.read()
                    statuses[str(response.status)] += 1
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(connections)))
        took = time.perf_counter() - began
    times.sort()
    return {
        "n": len(times),
        "rps": len(times) / took,
        "p50_ms": 1000 * times[len(times) // 2],
        "p95_ms": 1000 * times[int(len(times) * 0.95)],
        "statuses": dict(statuses),
    }


if __name__ == "__main__":
    import uvloop

    url, model, connections, seconds, *key = sys.argv[1:]
    print(json.dumps(uvloop.run(load(url, model, int(connections), float(seconds), *key))))
