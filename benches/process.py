"""What the benches need to know about processes: free ports, when a server is ready, its memory.

process.py ports N                                  N free loopback ports
process.py ready PID URL                            waits until URL answers 200
process.py starts RUNS JSON URL CMD… -- URL CMD…    time from exec to ready, interleaved
process.py memory JSON LABEL PID …                  peak and present resident memory
process.py rss PID                                  present resident memory in KiB
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from urllib.parse import urlsplit

# A server that is not ready by then never will be.
DEADLINE_S = 300


def ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    print(*(one.getsockname()[1] for one in sockets))


def status(url):
    """The HTTP status of a GET, or None while nobody listens."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_ready(url, alive):
    """Seconds until URL answers 200, asked every two milliseconds."""
    begun = time.perf_counter()
    while (code := status(url)) != 200:
        if not alive() or time.perf_counter() - begun > DEADLINE_S:
            sys.exit(f"{url} never became ready (last status: {code})")
        time.sleep(0.002)
    return time.perf_counter() - begun


def is_running(pid):
    """A zombie, whose parent has not looked yet, is not running."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start(url, command):
    """Milliseconds from exec to ready; the process is ended again."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return wait_ready(url, lambda: child.poll() is None) * 1000
    finally:
        end(child, 10)


def end(child, patience_s):
    """Ends a process, if need be by force."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def starts(runs, path, words):
    split = words.index("--")
    servers = {"ours": words[:split], "llama-server": words[split + 1 :]}
    times = {label: [] for label in servers}
    # The first start of each reads the files into the page cache; it is thrown away.
    for run in range(runs + 1):
        for label, (url, *command) in servers.items():
            taken = start(url, command)
            if run:
                times[label].append(taken)
    medians = {label: statistics.median(runs) for label, runs in times.items()}
    print("\nfrom exec to ready, ms, median (min … max), page cache warm")
    for label, runs in times.items():
        print(f"  {label:14} {medians[label]:9.1f} ({min(runs):.1f} … {max(runs):.1f})")
    print(f"  {'ratio':14} {medians['ours'] / medians['llama-server']:9.3f}")
    write(path, {"ready_ms": times})


def memory_of(pid):
    """Peak and present resident memory in KiB."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {key: int(fields[name].split()[0]) for key, name in (("peak", "VmHWM"), ("now", "VmRSS"))}


def memory(path, words):
    found = {label: memory_of(pid) for label, pid in zip(words[::2], words[1::2])}
    print("resident memory, MiB")
    for label, kib in found.items():
        print(f"  {label:14} peak {kib['peak'] / 1024:9.1f}   now {kib['now'] / 1024:9.1f}")
    peaks = [kib["peak"] for kib in found.values()]
    if len(peaks) == 2:
        print(f"  {'ratio':14}      {peaks[0] / peaks[1]:9.3f}")
    write(path, {"resident_kib": found})


def write(path, data):
    with open(path, "w") as file:
        json.dump(data, file, indent=1)
        file.write("\n")


def main(words):
    match words:
        case ["ports", count]:
            ports(int(count))
        case ["ready", pid, url]:
            wait_ready(url, lambda: is_running(int(pid)))
        case ["starts", runs, path, *rest]:
            starts(int(runs), path, rest)
        case ["memory", path, *rest]:
            memory(path, rest)
        case ["rss", pid]:
            print(memory_of(pid)["now"])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
