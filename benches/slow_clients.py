"""Ordinary requests while thousands of others misbehave: slow senders, slow readers, hang-ups.

For `--seconds` there are always `--connections` / `--seconds` × life of them open: a third sends its request a byte at a
time, a third asks for a stream and hardly reads it, a third hangs up in the middle. Compared is the time to the end of a
short request that comes alone, every `--every` seconds, before and meanwhile.
"""

import asyncio
import json
import random
import statistics
import sys
import time

import sides

HEAD = "POST /v1/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: "


def request(body):
    body = json.dumps(body)
    return f"{HEAD}{len(body)}\r\n\r\n{body}".encode()


# What the others ask for is little, so that the engine has time: the connections are the load.
SHORT = request({"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0, "cache_prompt": False})
LONG = request({"prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": True, "stream": True})


async def slow_sender(reader, writer):
    for byte in LONG:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)
    await reader.read(64)


async def slow_reader(reader, writer):
    writer.write(LONG)
    while await reader.read(16):
        await asyncio.sleep(0.2)


async def hang_up(reader, writer):
    writer.write(LONG)
    await reader.read(16)


MISCHIEF = [slow_sender, slow_reader, hang_up]


async def misbehave(port, how, outcomes):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    except OSError:
        outcomes["refused"] = outcomes.get("refused", 0) + 1
        return
    try:
        await asyncio.wait_for(how(reader, writer), 10)
        outcomes[how.__name__] = outcomes.get(how.__name__, 0) + 1
    except (OSError, asyncio.TimeoutError):
        outcomes["given up"] = outcomes.get("given up", 0) + 1
    finally:
        writer.transport.abort()


async def ordinary(port):
    """Seconds that a short request takes."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SHORT)
    answer = await reader.read()
    writer.close()
    if b"200 OK" not in answer[:20]:
        sys.exit(f"an ordinary request got {answer[:200]!r}")
    return time.perf_counter() - begun


async def measure(port, seconds, every):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(await ordinary(port))
        await asyncio.sleep(every)
    return times


async def mischief(port, connections, seconds, outcomes):
    tasks = []
    for at in range(connections):
        tasks.append(asyncio.create_task(misbehave(port, MISCHIEF[at % 3], outcomes)))
        await asyncio.sleep(seconds / connections * random.uniform(0.5, 1.5))
    await asyncio.gather(*tasks)


async def run(port, arguments):
    idle = await measure(port, arguments.seconds / 4, arguments.every)
    outcomes = {}
    crowd = asyncio.create_task(mischief(port, arguments.connections, arguments.seconds, outcomes))
    meanwhile = await measure(port, arguments.seconds, arguments.every)
    await crowd
    return idle, meanwhile, outcomes


def p95(times):
    return statistics.quantiles(times, n=20)[-1]


def main():
    options = sides.parser(__doc__, parallel=8, context=512)
    options.add_argument("--connections", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--every", type=float, default=0.2)
    arguments = options.parse_args()
    servers = [sides.ours(arguments)]
    with sides.running(arguments, servers):
        idle, meanwhile, outcomes = asyncio.run(run(servers[0].port, arguments))
    print(f"others: {outcomes}")
    print(f"idle p95 {p95(idle) * 1000:.0f} ms ({len(idle)}), meanwhile {p95(meanwhile) * 1000:.0f} ms ({len(meanwhile)})")
    print(f"ratio {p95(meanwhile) / p95(idle):.2f}")
    sides.write(arguments, idle=idle, meanwhile=meanwhile, outcomes=outcomes)


if __name__ == "__main__":
    main()
