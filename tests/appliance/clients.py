"""Clients that stream without a pause while a command is run: nobody may be refused, no answer may be cut.

clients.py [--killed] ADDRESS CLIENTS COMMAND...

Every client has had an answer before COMMAND starts, and has two more after it has ended. --killed: the command kills
the server, so streams may be cut and their clients come back; nobody may be refused all the same.
"""

import collections
import http.client
import json
import subprocess
import sys
import threading

arguments = sys.argv[1:]
killed = arguments[0] == "--killed"
address, count, *command = arguments[1:] if killed else arguments

counted = collections.Counter()
lock = threading.Lock()
stopped = threading.Event()
warm = threading.Barrier(int(count) + 1)

BODY = json.dumps(
    {
        "messages": [{"role": "user", "content": "Count from one to twenty."}],
        "max_tokens": 24,
        "stream": True,
    }
)


def ask():
    """One answer over a connection of its own: what became of it."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.connect()
    except OSError as error:
        return f"refused ({error})"
    try:
        connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"cut ({type(error).__name__})"
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status}"
    if '"error"' in body or not body.rstrip().endswith("data: [DONE]"):
        return "cut (no end)"
    return "whole"


def client():
    def count_one():
        outcome = ask()
        with lock:
            counted[outcome] += 1
        return outcome

    first = count_one()
    warm.wait()
    if first != "whole":
        return
    while not stopped.is_set():
        count_one()
    whole = 0
    while whole < 2 and counted.total() < 10_000:
        whole += count_one() == "whole"


threads = [threading.Thread(target=client) for _ in range(int(count))]
for thread in threads:
    thread.start()
warm.wait()
status = subprocess.run(command, check=False).returncode
stopped.set()
for thread in threads:
    thread.join()

print(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())))
bad = {
    outcome
    for outcome in counted
    if outcome != "whole" and not (killed and outcome.startswith(("cut", "status 503")))
}
if status != 0:
    print(f"the command ended with {status}")
if counted["whole"] < 3 * int(count):
    print("too few whole answers")
sys.exit(bool(bad) or status != 0 or counted["whole"] < 3 * int(count))
