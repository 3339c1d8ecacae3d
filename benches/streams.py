"""Tokens per second of 1, 4, 8, 16, 32 streams together, ours and llama-server in turns.

Counted are the tokens from the moment when all streams have their first one until each has `--tokens` more. A first,
thrown away run of each count, whose streams end by themselves, tells how many tokens an event carries.
"""

import sides
import wire

SAMPLING = {
    "greedy": {"temperature": 0},
    "default": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
}


def measure(port, requests, tokens):
    """Answers of streams that were cut off when each had generated so many tokens beside all others."""
    load = wire.Load(port)
    streams = [load.send(request) for request in requests]
    load.wait(lambda: all(stream.events or stream.done for stream in streams))
    before = [stream.events for stream in streams]
    load.wait(lambda: all(one.done or one.events >= seen + tokens for one, seen in zip(streams, before)))
    for stream in streams:
        load.hang_up(stream)
    return [stream.answer() for stream in streams]


def main():
    options = sides.parser(__doc__)
    options.add_argument("--streams", default="1,4,8,16,32")
    options.add_argument("--prompt", type=int, default=128, help="tokens")
    options.add_argument("--tokens", type=int, default=64, help="measured of each stream")
    options.add_argument("--sampling", choices=SAMPLING, default="greedy")
    arguments = options.parse_args()
    counts = [int(count) for count in arguments.streams.split(",")]
    arguments.parallel = arguments.parallel or max(counts)
    # A stream that begins early has to last until the last one has its tokens.
    arguments.context = arguments.context or 1024

    servers = sides.both(arguments, "--cache-ram", "0")
    prompts = sides.Prompts(arguments)

    def requests(count, most):
        body = {"max_tokens": most, "ignore_eos": True} | SAMPLING[arguments.sampling]
        return [wire.encode(body | {"prompt": prompts.ids(arguments.prompt)}) for _ in range(count)]

    runs = {server.label: [] for server in servers}
    per_event = {}
    with sides.running(arguments, servers):
        for server in servers:
            for count in counts:
                answers = wire.ask(server.port, requests(count, arguments.tokens // 2))
                per_event[server.label, count] = wire.per_event([answer.require() for answer in answers])
        for _ in range(arguments.runs):
            for count in counts:
                for server in servers:
                    sides.settle(servers)  # streams that were hung up may still run
                    most = arguments.context - arguments.prompt
                    answers = measure(server.port, requests(count, most), arguments.tokens)
                    speed = wire.together(answers, per_event[server.label, count])
                    runs[server.label].append({f"{count} streams, tokens/s": speed})
    print(f"sampling {arguments.sampling}")
    middle = sides.compare(runs, [f"{count} streams, tokens/s" for count in counts])
    sides.write(arguments, runs=runs, medians=middle)


if __name__ == "__main__":
    main()
