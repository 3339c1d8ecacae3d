"""What the comparisons of two servers share: options, both started with the same flags, prompts, medians, tables."""

import argparse
import contextlib
import os
import random
import shlex
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

import process
import wire

OUT = "target/bench4"


def parser(text, **defaults):
    """The options that every program has; `defaults` are the program's own."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = found.add_argument
    add("--ours", default=os.environ.get("SERVER", "target/release/llm-server"), help="the program llm-server")
    add("--peer", default=os.environ.get("LLAMA_SERVER"), help="llama-server; default: built by llama-server.sh")
    add("--model", help="GGUF file for both; default: the small model")
    add("--runs", type=int, default=3, help="of each server, in turns")
    add("--only", choices=["ours", "peer"])
    add("--set", action="append", default=[], help="one more setting for ours")
    add("--peer-arg", action="append", default=[], help='more flags for llama-server: --peer-arg="-ngl 99"')
    add("--context", type=int, help="tokens for each sequence")
    add("--parallel", type=int, help="sequences")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="0: each takes its own default")
    add("--batch", type=int, default=2048)
    add("--ubatch", type=int, default=512)
    add("--kv", default="f16")
    add("--flash", default="on")
    add("--ids", default="1000-4000", help="range of the token ids that prompts are made of")
    add("--json", help=f"default: {OUT}/NAME.json")
    found.set_defaults(name=os.path.basename(sys.argv[0]).removesuffix(".py"), **defaults)
    return found


class Server:
    """A program that serves on a loopback port once it is `running`."""

    def __init__(self, label, command):
        self.label, self.command, self.port, self.pid = label, command, None, None


def ours(arguments, label="ours", settings=()):
    def command(port):
        threads = f", threads = {arguments.threads}, threads_batch = {arguments.threads}" if arguments.threads else ""
        engine = (
            f"context = {arguments.context}, parallel = {arguments.parallel}, batch = {arguments.batch}, "
            f"ubatch = {arguments.ubatch}, flash_attention = '{arguments.flash}, "
            f"kv = {{k = '{arguments.kv}, v = '{arguments.kv}}}, beyond_trained_context = true{threads}"
        )
        limits = "limits = {queue = 1000, queue_wait = 3600, request = 3600}"
        words = [f'listen = "127.0.0.1:{port}"', f"engine = {{{engine}}}", limits, *settings, *arguments.set]
        sets = (word for setting in words for word in ("--set", setting))
        return [arguments.ours, "serve", "--model-file", arguments.model, *sets]

    return Server(label, command)


def trained(model):
    """Architecture and trained context of a GGUF file; both stand before its long lists."""
    with open(model, "rb") as file:
        head = file.read(1 << 16)

    def value(key):
        start = head.index(key.encode()) + len(key) + 4
        return head[start:]

    (length,) = struct.unpack_from("<Q", name := value("general.architecture"))
    name = name[8 : 8 + length].decode()
    return name, struct.unpack_from("<I", value(f"{name}.context_length"))[0]


def theirs(arguments, *flags):
    """Each of its slots gets an equal part of the context, as each of our sequences does.

    It cuts what a model was not trained for, unless the file is said to be trained for it.
    """

    def command(port):
        threads = ["-t", arguments.threads, "-tb", arguments.threads] if arguments.threads else []
        name, context = trained(arguments.model)
        beyond = ["--override-kv", f"{name}.context_length=int:{arguments.context}"]
        words = [
            arguments.peer, "--host", "127.0.0.1", "--port", port, "-m", arguments.model,
            "-c", arguments.context * arguments.parallel, "-np", arguments.parallel, *threads,
            "-b", arguments.batch, "-ub", arguments.ubatch, "-fa", arguments.flash,
            "-ctk", arguments.kv, "-ctv", arguments.kv, "--no-webui",
            *(beyond if arguments.context > context else []), *flags,
        ]  # fmt: skip
        return [str(word) for word in words] + [word for more in arguments.peer_arg for word in shlex.split(more)]

    return Server("llama-server", command)


def both(arguments, *peer_flags):
    """Ours and theirs, or the one that `--only` names."""
    found = []
    if arguments.only != "peer":
        found.append(ours(arguments))
    if arguments.only != "ours":
        arguments.peer = arguments.peer or output("benches/llama-server.sh")
        found.append(theirs(arguments, *peer_flags))
    return found


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


@contextlib.contextmanager
def running(arguments, servers, warm=None):
    """Starts all, waits until they are ready, warms them up (with tokens, or the prompt `warm`), and ends them whatever
    happens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments.model = arguments.model or output(arguments.ours, "models", "path", "smollm2-135m-instruct")
    os.makedirs(OUT, exist_ok=True)
    children = []
    with contextlib.ExitStack() as stack:
        for server in servers:
            with socket.create_server(("127.0.0.1", 0)) as free:
                server.port = free.getsockname()[1]
            path = f"{OUT}/{arguments.name}-{server.label.replace(' ', '-')}.log"
            log = stack.enter_context(open(path, "w"))
            child = subprocess.Popen(server.command(server.port), stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.end, child, 30)
            children.append(child.pid)
            server.pid = child.pid
            try:
                process.wait_ready(f"http://127.0.0.1:{server.port}/health", lambda child=child: child.poll() is None)
            except SystemExit:
                with open(path) as text:
                    sys.exit(f"{server.label} did not start; {path} ends with\n{text.read()[-1500:]}")
            prompt = warm or Prompts(arguments).ids(64)
            wire.ask(server.port, [wire.encode({"prompt": prompt, "max_tokens": 8})])[0].require()
        shape = f"{arguments.parallel} × {arguments.context} tokens of context, {arguments.threads or 'default'} threads"
        print(f"{arguments.name}: {os.path.basename(arguments.model)}, {shape}, batch {arguments.batch}/{arguments.ubatch}")
        children = [*children, os.getpid()]
        busy, own, begun = busy_s(), cpu_s(children), time.perf_counter()
        yield
        spent = (time.perf_counter() - begun) * os.cpu_count()
        others = (busy_s() - busy - (cpu_s(children) - own)) / spent
        print(f"meanwhile other processes took {max(0, others):.0%} of this machine's CPUs")


def settle(servers):
    """Waits until none of them computes any more."""
    pids = [server.pid for server in servers]
    used = cpu_s(pids)
    while True:
        time.sleep(0.1)
        before, used = used, cpu_s(pids)
        if used - before <= 0.01:
            return


def busy_s():
    """Seconds that the machine's CPUs have worked, for anybody."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def cpu_s(pids):
    """Seconds that these processes have worked."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Prompts:
    """Prompts of exact length that no cache has seen: token ids drawn anew in each process and at each call."""

    def __init__(self, arguments, seed=None):
        low, high = map(int, arguments.ids.split("-"))
        self.range, self.source = range(low, high), random.Random(seed)

    def ids(self, count):
        return self.source.choices(self.range, k=count)


def quantile(values, share):
    """The smallest value that at least this share of all do not exceed."""
    values = sorted(values)
    return values[min(len(values) - 1, max(0, -int(-share * len(values) // 1) - 1))]


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(mine, other):
    return mine / other if mine is not None and other else None


def shown(value):
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def table(head, rows):
    cells = [head, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        print("  ".join([first, *others]), flush=True)


def compare(runs, figures):
    """A table of medians: a row for each of `figures`, a column for each server, the first over the second.

    `runs` maps a server's label to its runs, each a dict of figures. Returns the medians.
    """
    middle = {label: {name: median(run.get(name) for run in found) for name in figures} for label, found in runs.items()}
    labels = list(runs)
    rows = []
    for name in figures:
        values = [middle[label][name] for label in labels]
        rows.append([name, *values, *([ratio(*values)] if len(values) == 2 else [])])
    table(["median", *labels, *(["ratio"] if len(labels) == 2 else [])], rows)
    return middle


def write(arguments, **data):
    path = arguments.json or f"{OUT}/{arguments.name}.json"
    process.write(path, {"arguments": vars(arguments)} | data)
    print(f"written to {path}")
