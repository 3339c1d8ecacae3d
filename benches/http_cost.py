"""What HTTP costs: CPU time of the server's threads beside the engine's, for each streamed token, and whether streaming
slows the engine down.

Streams are run with many small events, and the same requests unstreamed; CPU times are those of the threads by name.
"""

import os
import statistics

import sides
import wire


def cpu_s(pid, named):
    """CPU seconds of the process's threads whose names begin so."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        if name.startswith(named):
            fields = rest.split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def main():
    options = sides.parser(__doc__)
    options.add_argument("--streams", type=int, default=64)
    options.add_argument("--tokens", type=int, default=256)
    arguments = options.parse_args()
    arguments.parallel = arguments.parallel or arguments.streams
    arguments.context = arguments.context or 512
    servers = [sides.ours(arguments)]
    prompts = sides.Prompts(arguments)
    costs, speeds = [], {True: [], False: []}
    with sides.running(arguments, servers):
        server = servers[0]
        for _ in range(arguments.runs):
            for streamed in (True, False):
                body = {"max_tokens": arguments.tokens, "ignore_eos": True, "temperature": 0, "stream": streamed}
                if not streamed:
                    body["stream_options"] = None
                requests = [wire.encode(body | {"prompt": prompts.ids(32)}) for _ in range(arguments.streams)]
                before = cpu_s(server.pid, "http")
                begun = sides.time.perf_counter()
                load = wire.Load(server.port)
                streams = [load.send(request) for request in requests]
                load.wait(lambda streams=streams: all(stream.done for stream in streams))
                speeds[streamed].append(arguments.streams * arguments.tokens / (sides.time.perf_counter() - begun))
                if streamed:
                    spent = cpu_s(server.pid, "http") - before
                    costs.append(spent / (arguments.streams * arguments.tokens) * 1e6)
    fast, slow = (statistics.median(speeds[streamed]) for streamed in (False, True))
    print(f"HTTP threads: {statistics.median(costs):.1f} µs of CPU for each streamed token ({arguments.streams} streams)")
    print(f"engine: {slow:.1f} tokens/s streamed, {fast:.1f} unstreamed, ratio {slow / fast:.3f}")
    sides.write(arguments, costs=costs, speeds={"streamed": speeds[True], "whole": speeds[False]})


if __name__ == "__main__":
    main()
