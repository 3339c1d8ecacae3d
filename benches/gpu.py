"""Measures placements of one model: this server and llama-server in turns, one at a time on the card.

Called by benches/gpu.sh. For each row both servers are started with the same placement, threads, context and KV
format, asked the same questions, and stopped. Prompts are new words each time, so that no prefix cache helps. Prints
a table of medians with the ratio ours / llama-server and writes everything to a JSON file.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

import process

WORDS = [f"w{number}" for number in range(20000)]


def rows(arguments):
    """Name, our placement in Nickel, llama-server's flags."""
    moe = "a3b" in os.path.basename(arguments.model)
    all_rows = {
        "experts on CPU": ("{gpu_layers = 'all, cpu_moe_layers = 'all}", ["-ngl", "99", "--cpu-moe", "--fit", "off"]),
        "n_cpu_moe 24": ("{gpu_layers = 'all, cpu_moe_layers = 24}", ["-ngl", "99", "--n-cpu-moe", "24", "--fit", "off"]),
        "half of the layers": ("{gpu_layers = 32}", ["-ngl", "32", "--fit", "off"]),
        "automatic": ("{}", ["--fit", "on"]),
        # Needs the whole card: run without ballast.
        "all on GPU": ("{gpu_layers = 'all, cpu_moe_layers = 0}", ["-ngl", "99", "--fit", "off"]),
    }
    if arguments.rows:
        wanted = arguments.rows.split(",")
    elif moe:
        wanted = ["experts on CPU", "n_cpu_moe 24", "automatic"]
    else:
        wanted = ["half of the layers", "automatic"]
    return {name: all_rows[name] for name in wanted}


def engine(arguments, placement, threads):
    settings = (
        f"context = {arguments.context}, parallel = 1, kv = {{k = '{arguments.kv}, v = '{arguments.kv}}}, "
        f"flash_attention = 'on, batch = 2048, ubatch = {arguments.ubatch}, load = '{arguments.load}, "
        f"placement = {placement}"
    )
    return f"engine = {{{settings}{f', threads = {threads}' if threads else ''}}}"


def ours(arguments, port, placement, threads):
    return [
        arguments.ours, "serve", "--model-file", arguments.model,
        "--set", f'listen = "127.0.0.1:{port}"',
        "--set", engine(arguments, placement, threads),
        *(word for setting in arguments.set for word in ("--set", setting)),
    ]  # fmt: skip


def theirs(arguments, port, flags, threads):
    command = [
        arguments.peer, "-m", arguments.model, "--host", "127.0.0.1", "--port", str(port),
        "-c", str(arguments.context), "-np", "1", "-ctk", arguments.kv, "-ctv", arguments.kv, "-fa", "on",
        "-b", "2048", "-ub", str(arguments.ubatch), "-lm", arguments.peer_load,
        "--cache-ram", "0", "--no-cache-prompt", *flags,
    ]  # fmt: skip
    return command + (["-t", str(threads)] if threads else [])


def ask(port, prompt, tokens):
    """One streamed completion: seconds to the first text, seconds from first to last, token counts, gaps."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = {
        "prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
        "stream_options": {"include_usage": True}, "cache_prompt": False,
    }  # fmt: skip
    begun = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:300]}")
    times, usage = [], None
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        event = json.loads(line[6:])
        if event.get("choices"):
            times.append(now)
        usage = event.get("usage") or usage
    connection.close()
    gaps = sorted(after - before for before, after in zip(times, times[1:]))
    # The last event only tells the reason of the end.
    return {
        "ttft_s": times[0] - begun,
        "prompt_tokens": usage["prompt_tokens"],
        "prompt_per_s": usage["prompt_tokens"] / (times[0] - begun),
        "decode_per_s": (usage["completion_tokens"] - 1) / (times[-1] - times[0]),
        "gap_p50_s": statistics.median(gaps),
        "gap_max_s": gaps[-1],
    }


def prompts(count, seed):
    """Texts of about `count` tokens (the synthetic tokenizer spends six on a word)."""
    source = random.Random(seed)
    while True:
        yield " ".join(source.choices(WORDS, k=count // 6))


def gpu_used():
    if not shutil.which("nvidia-smi"):
        return []
    out = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True
    )
    return [int(line) for line in out.stdout.split()]


def placement(port):
    """Planned and allocated bytes of each device, from our own /props."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/props")
    plan = json.loads(connection.getresponse().read())["plan"]
    return plan["devices"]


def show_placement(devices):
    for device in devices:
        cache = sum(device["kv"].values())
        planned = {"weights": sum(device["weights"].values()), "cache": cache, "compute": device["compute"]}
        for kind, bytes_ in planned.items():
            real = device["allocated"][kind]
            off = 100 * (bytes_ - real) / real if real else 0.0
            print(f"    {device['name']:8} {kind:8} planned {bytes_:15,} allocated {real:15,}  {off:+.2f} %")


def measure(arguments, label, command, port, log):
    before = gpu_used()
    if arguments.cold:
        subprocess.run(["sync"], check=True)
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
    begun = time.perf_counter()
    with open(log, "w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        process.wait_ready(f"http://127.0.0.1:{port}/health", lambda: child.poll() is None)
        ready = time.perf_counter() - begun
        if arguments.cold:
            return {"ready_s": ready, "answers": []}
        texts = prompts(arguments.prompt, random.random())
        ask(port, next(texts), 16)
        answers = [ask(port, next(texts), arguments.tokens) for _ in range(arguments.runs)]
        used = [after - less for after, less in zip(gpu_used(), before)]
        rss = process.memory_of(child.pid)["now"]
        devices = placement(port) if label.endswith(" ours") else None
    except (Exception, SystemExit) as error:
        with open(log) as file:
            tail = file.read()[-1500:]
        print(f"{label}: {error}\n{tail}", file=sys.stderr, flush=True)
        return None
    finally:
        process.end(child, 30)
    return {"ready_s": ready, "answers": answers, "gpu_mib": used, "rss_kib": rss, "devices": devices}


def medians(results, name):
    return statistics.median(answer[name] for result in results for answer in result["answers"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--rows", help="names of rows, comma between; default: those that fit the model")
    parser.add_argument("--context", type=int, default=65536)
    parser.add_argument("--kv", default="q8_0")
    parser.add_argument("--threads", type=int, default=14, help="of both; 0: each takes its own default")
    parser.add_argument("--ubatch", type=int, default=512)
    parser.add_argument("--load", default="auto")
    parser.add_argument("--peer-load", default="none", help="llama-server's --load-mode; none is its fastest for prompts")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens, about")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=1, help="starts of each server for each row")
    parser.add_argument("--set", action="append", default=[], help="more settings for ours")
    parser.add_argument("--cold", action="store_true", help="only starts, each with an empty page cache (as root)")
    parser.add_argument("--only", choices=["ours", "llama-server"])
    arguments = parser.parse_args()

    folder = os.path.dirname(arguments.json) or "."
    os.makedirs(folder, exist_ok=True)
    report = {"arguments": vars(arguments), "rows": {}}
    print(f"\n{os.path.basename(arguments.model)}, context {arguments.context}, KV {arguments.kv}, "
          f"threads {arguments.threads or 'default'}, ubatch {arguments.ubatch}")  # fmt: skip
    if "automatic" in rows(arguments) and not arguments.cold:
        begun = time.perf_counter()
        plan = [arguments.ours, "plan", "--model-file", arguments.model, "--set", engine(arguments, "{}", arguments.threads)]
        print(subprocess.run(plan, capture_output=True, text=True).stdout)
        print(f"planned in {time.perf_counter() - begun:.2f} s", flush=True)
    head = f"{'row':20} {'':12} {'decode tok/s':>13} {'prompt tok/s':>13} {'ready s':>8} {'VRAM MiB':>9} {'RSS MiB':>8}"
    print(head)
    for row, (placement, flags) in rows(arguments).items():
        found = {"ours": [], "llama-server": []}
        for turn in range(arguments.turns):
            order = list(found) if turn % 2 == 0 else list(found)[::-1]
            for label in order:
                if arguments.only and label != arguments.only:
                    continue
                with process.socket.create_server(("127.0.0.1", 0)) as one:
                    port = one.getsockname()[1]
                command = (
                    ours(arguments, port, placement, arguments.threads)
                    if label == "ours"
                    else theirs(arguments, port, flags, arguments.threads)
                )
                log = os.path.join(folder, re.sub(r"\W+", "-", f"{row}-{label}-{turn}") + ".log")
                result = measure(arguments, f"{row} {label}", command, port, log)
                if result:
                    found[label].append(result)
        report["rows"][row] = found
        shown = {}
        for label, results in found.items():
            if not results:
                continue
            if arguments.cold:
                seconds = [result["ready_s"] for result in results]
                print(f"{row:20} {label:12} ready with an empty page cache: {', '.join(f'{s:.2f} s' for s in seconds)}", flush=True)
                continue
            shown[label] = [
                medians(results, "decode_per_s"),
                medians(results, "prompt_per_s"),
                statistics.median(result["ready_s"] for result in results),
            ]
            first = results[0]
            print(f"{row:20} {label:12} {shown[label][0]:13.1f} {shown[label][1]:13.0f} {shown[label][2]:8.2f} "
                  f"{'+'.join(map(str, first['gpu_mib'])):>9} {first['rss_kib'] // 1024:8}", flush=True)  # fmt: skip
        if len(shown) == 2:
            a, b = shown["ours"], shown["llama-server"]
            print(f"{row:20} {'ratio':12} {a[0] / b[0]:13.3f} {a[1] / b[1]:13.3f} {a[2] / b[2]:8.3f}", flush=True)
        if found["ours"] and found["ours"][0].get("devices"):
            show_placement(found["ours"][0]["devices"])
    with open(arguments.json, "w") as file:
        json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
