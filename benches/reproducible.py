"""Reproducible mode: requests alone, then the same ones mixed at high concurrency beside others that hang up.

Compared are tokens, log-probabilities and the way of ending, exactly. Requests have prompts of many lengths, of which
some share prefixes, seeds, and a temperature. Of those that hang up half ask what others ask, so that what they leave
behind is a part of somebody's prompt. There are fewer sequences than requests, and host memory for only a few prompts: what
is cached comes and goes all the time, which the table shows. The same without the mode tells what it costs.
"""

import argparse
import itertools
import time
import urllib.request

import sides
import wire


def requests(arguments, prompts):
    """Payloads and their prompts."""
    source = prompts.source
    shared = [prompts.ids(source.randrange(100, arguments.longest * 2 // 3)) for _ in range(5)]
    found = []
    for seed in range(arguments.requests):
        # Short ones are as frequent as long ones on a scale of powers.
        length = round(20 * (arguments.longest / 20) ** source.random())
        prefix = source.choice(shared) if source.random() < 0.6 else []
        prompt = prefix[: length - 1] + prompts.ids(max(1, length - len(prefix)))
        body = {
            "prompt": prompt, "max_tokens": source.randrange(8, arguments.tokens + 1), "ignore_eos": True,
            "temperature": 0.8, "seed": seed, "logprobs": 3,
        }  # fmt: skip
        found.append((wire.encode(body), prompt))
    return found


def figures(port):
    """What the server counts, by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def alone(port, payloads):
    begun = time.perf_counter()
    answers = [wire.ask(port, [payload])[0].require() for payload in payloads]
    return answers, time.perf_counter() - begun


def mixed(port, payloads, known, arguments, prompts):
    """The same in another order, so many at once, with more requests among them that hang up midway."""
    source = prompts.source
    load, running, streams, cut = wire.Load(port), [], {}, itertools.count()
    pending = [(number, payload, None, None) for number, payload in enumerate(payloads)]
    for _ in range(arguments.noise):
        others = prompts.ids(source.randrange(20, arguments.longest))
        # Its own last tokens, so that it is nobody's request in full.
        prompt = source.choice([others, source.choice(known) + prompts.ids(4)])
        body = {"prompt": prompt, "max_tokens": 200, "ignore_eos": True}
        # Half of them leave while their prompt is read, or before.
        tokens, seconds = source.choice([(source.randrange(1, 40), 60), (10**9, source.random())])
        pending.append((None, wire.encode(body), tokens, seconds))
    source.shuffle(pending)

    def turn():
        for number, stream, tokens, seconds in list(running):
            late = number is None and (stream.events >= tokens or time.perf_counter() - stream.begun > seconds)
            if late and not stream.done:
                next(cut)
                load.hang_up(stream)
            if stream.done:
                running.remove((number, stream, tokens, seconds))
        while pending and len(running) < arguments.concurrency:
            number, payload, tokens, seconds = pending.pop()
            stream = load.send(payload)
            running.append((number, stream, tokens, seconds))
            if number is not None:
                streams[number] = stream
        return not running

    begun = time.perf_counter()
    load.wait(turn)
    taken = time.perf_counter() - begun
    return [streams[number].answer().require() for number in range(len(payloads))], taken, next(cut)


def told(answer):
    """All that has to be equal: each token with its log-probabilities, and the end."""
    columns = ("tokens", "token_logprobs", "top_logprobs")
    tokens = [row for piece in answer.logprobs for row in zip(*(piece[column] for column in columns))]
    return [*tokens, (answer.text, answer.reason, answer.tokens)]


def difference(one, other):
    """The first place where two answers differ, or None."""
    if len(one) != len(other):
        return f"{len(one) - 1} tokens against {len(other) - 1}"
    for place, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return f"token {place}: {a} against {b}"
    return None


def main():
    options = sides.parser(__doc__, parallel=8, context=2048, runs=1)
    options.add_argument("--mode", default="engine.reproducible = true", help="the setting that is shown")
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--noise", type=int, default=60, help="more requests, which hang up")
    options.add_argument("--concurrency", type=int, default=32)
    options.add_argument("--cache", type=int, default=64, help="MiB of host memory for prompts; the small model takes 1 for 45 tokens")
    options.add_argument("--longest", type=int, default=1500, help="tokens of a prompt")
    options.add_argument("--tokens", type=int, default=48, help="most generated by each")
    options.add_argument("--without", action=argparse.BooleanOptionalAction, default=True, help="also without the mode: its cost")
    arguments = options.parse_args()

    cache = f"cache.ram = {arguments.cache}"
    servers = [sides.ours(arguments, "reproducible", [arguments.mode, cache])]
    if arguments.without:
        servers.append(sides.ours(arguments, "plain", [cache]))
    runs = {server.label: [] for server in servers}
    with sides.running(arguments, servers):
        for _ in range(arguments.runs):
            prompts = sides.Prompts(arguments)
            payloads, known = zip(*requests(arguments, prompts))
            first = {server.label: alone(server.port, payloads) for server in servers}
            for server in servers:
                answers, taken, cut = mixed(server.port, payloads, known, arguments, prompts)
                counted = figures(server.port)
                before, seconds = first[server.label]
                differ = [difference(told(a), told(b)) for a, b in zip(before, answers)]
                report = [
                    f"request {number}, {len(prompt)} tokens of prompt, cached {one.cached} and {other.cached}: {why}"
                    for number, (why, prompt, one, other) in enumerate(zip(differ, known, before, answers))
                    if why
                ]
                pairs = list(zip(before, answers))
                runs[server.label].append({
                    f"identical of {len(differ)}": differ.count(None), "alone, s": seconds, "mixed, s": taken,
                    "generated tokens": sum(answer.tokens for answer in answers), "others hung up": cut,
                    "prompt tokens": sum(map(len, known)), "found in a cache, alone": sum(one.cached for one, _ in pairs),
                    "found in a cache, mixed": sum(other.cached for _, other in pairs),
                    "with another part found": sum(one.cached != other.cached for one, other in pairs),
                    "cache at the end, MiB": counted["llm_server_prefix_cache_bytes"] / (1 << 20), "differ": report,
                })  # fmt: skip
    names = [name for name in runs["reproducible"][0] if name != "differ"]
    middle = sides.compare(runs, names)
    for line in [line for run in runs["reproducible"] for line in run["differ"]][:5]:
        print(f"  {line[:300]}")
    sides.write(arguments, runs=runs, medians=middle)


if __name__ == "__main__":
    main()
