#!/usr/bin/env python3
"""Whether a picture means the same to both servers: the next token's log-probabilities, ours and llama-server's.

Exit status 1 if the prompts differ in length, or an alternative that both name by more than `--tolerance`.
"""

import base64
import json
import struct
import sys
import urllib.request
import zlib

import sides


def png(seed, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((x * (seed + c) + y * (3 + c * seed)) % 256 for x in range(width) for c in range(3))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def question(*pictures):
    parts = [{"type": "text", "text": "Look at this:"}]
    for file in pictures:
        url = "data:image/png;base64," + base64.b64encode(file).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    parts.append({"type": "text", "text": "What is it?"})
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 10}


def ask(port, body):
    """The first token's alternatives, and the length of the prompt."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=300) as answer:
        answer = json.load(answer)
    first = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {one["token"]: one["logprob"] for one in first}, answer["usage"]["prompt_tokens"]


def compare(about, questions):
    """Asks both servers each of the questions, prints how far apart they are, and ends the program."""
    options = sides.parser(about, context=2048, parallel=1)
    options.add_argument("--projector", required=True, metavar="FILE")
    options.add_argument("--tolerance", type=float, default=0.02)
    arguments = options.parse_args()
    servers = sides.both(arguments, "--mmproj", arguments.projector, "--jinja")
    command = servers[0].command
    servers[0].command = lambda port: [*command(port), "--projector-file", arguments.projector]

    rows, worst = [], 0.0
    # llama-server takes no tokens beside a projector.
    with sides.running(arguments, servers, warm="Once upon a time"):
        for name, body in questions.items():
            (our, tokens), (their, their_tokens) = (ask(server.port, body) for server in servers)
            common = our.keys() & their.keys()
            apart = max((abs(our[token] - their[token]) for token in common), default=float("inf"))
            worst = max(worst, apart if tokens == their_tokens and len(common) > 5 else float("inf"))
            rows.append([name, tokens, their_tokens, len(common), f"{apart:.4f}"])
    sides.table(["prompt", "tokens", "theirs", "alternatives in common", "furthest apart"], rows)
    sys.exit(0 if worst <= arguments.tolerance else 1)


def main():
    square, strip = png(3, 50, 30), png(7, 200, 40)
    questions = {
        "no picture": question(),
        "one": question(square),
        "another": question(strip),
        "both": question(square, strip),
        "both, swapped": question(strip, square),
    }
    compare(__doc__, questions)


if __name__ == "__main__":
    main()
