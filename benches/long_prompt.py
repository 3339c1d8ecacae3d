"""What running streams feel of a long prompt: their longest and p99 gap between tokens while it is read, and its own time.

Streams generate as long as their context lasts; when each has `--before` tokens, the long prompt arrives.
"""

import sides
import wire


def measure(port, arguments, prompts):
    body = {"max_tokens": arguments.context - arguments.prompt, "ignore_eos": True, "temperature": 0}
    requests = [wire.encode(body | {"prompt": prompts.ids(arguments.prompt)}) for _ in range(arguments.streams)]
    late = wire.encode(body | {"prompt": prompts.ids(arguments.long), "max_tokens": 16})
    load = wire.Load(port)
    streams = [load.send(request) for request in requests]
    load.wait(lambda: all(stream.done or stream.events >= arguments.before for stream in streams))
    long = load.send(late)
    load.wait(lambda: long.done)
    for stream in streams:
        load.hang_up(stream)
    answer = long.answer().require()
    begin, end = answer.begun, answer.times[0]
    pairs = [list(zip(times, times[1:])) for times in (stream.answer().times for stream in streams)]
    during = [[after - before for before, after in each if after > begin and before < end] for each in pairs]
    alone = [after - before for each in pairs for before, after in each if after < begin]
    lasted = [each and each[-1][1] >= end for each in pairs]
    if not all(lasted):
        print(f"{lasted.count(False)} streams ended before the long prompt was read: give more --context", flush=True)
    gaps = [gap for each in during for gap in each]
    return {
        "longest gap, s": max(gaps),
        "p99 gap, s": sides.quantile(gaps, 0.99),
        "median gap, s": sides.median(gaps),
        "longest gap before, s": max(alone),
        "tokens of the streams meanwhile": len(gaps),
        "first token of the long prompt, s": answer.ttft,
        "long prompt, tokens/s": arguments.long / answer.ttft,
    }


def main():
    options = sides.parser(__doc__, parallel=9, context=20480)
    options.add_argument("--streams", type=int, default=8)
    options.add_argument("--prompt", type=int, default=64, help="tokens of each stream's prompt")
    options.add_argument("--before", type=int, default=32, help="tokens of each stream before the long prompt comes")
    options.add_argument("--long", type=int, default=16384, help="tokens of the long prompt")
    arguments = options.parse_args()

    servers = sides.both(arguments, "--cache-ram", "0")
    prompts = sides.Prompts(arguments)
    runs = {server.label: [] for server in servers}
    with sides.running(arguments, servers):
        for _ in range(arguments.runs):
            for server in servers:
                runs[server.label].append(measure(server.port, arguments, prompts))
    print(f"{arguments.long} tokens of prompt beside {arguments.streams} streams")
    middle = sides.compare(runs, list(next(iter(runs.values()))[0]))
    sides.write(arguments, runs=runs, medians=middle)


if __name__ == "__main__":
    main()
