"""Streamed requests over raw sockets: one thread only notes when which bytes came, and they are parsed afterwards.

The client must not disturb what it measures, on a machine whose every core the server uses.
"""

import bisect
import json
import selectors
import socket
import sys
import time

# No request of the benches may take longer.
PATIENCE_S = 1800


def encode(body, path="/v1/completions"):
    """The bytes of a streamed request, made before the clock runs."""
    body = json.dumps({"stream": True, "stream_options": {"include_usage": True}} | body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Stream:
    """A request under way: when which bytes came. `events` counts what was sent so far."""

    def __init__(self, connection):
        self.connection, self.begun = connection, time.perf_counter()
        self.chunks, self.events, self.done = [], 0, False

    def answer(self):
        return Answer(self)


class Load:
    """Streams at one server, all read by this thread."""

    def __init__(self, port):
        self.port, self.selector = port, selectors.DefaultSelector()

    def send(self, request):
        stream = Stream(socket.create_connection(("127.0.0.1", self.port), timeout=60))
        stream.connection.sendall(request)
        stream.connection.setblocking(False)
        self.selector.register(stream.connection, selectors.EVENT_READ, stream)
        return stream

    def hang_up(self, stream):
        if not stream.done:
            stream.done = True
            self.selector.unregister(stream.connection)
            stream.connection.close()

    def wait(self, until):
        """Reads until `until()` holds, which is asked after every batch of arrivals."""
        deadline = time.perf_counter() + PATIENCE_S
        while not until():
            if time.perf_counter() > deadline:
                sys.exit(f"nothing came to an end in {PATIENCE_S} s")
            for key, _ in self.selector.select(1):
                data, now = self._read(key.fileobj), time.perf_counter()
                key.data.chunks.append((now, data))
                key.data.events += data.count(b"data: {")
                if not data:
                    self.hang_up(key.data)

    @staticmethod
    def _read(connection):
        try:
            return connection.recv(1 << 16)
        except ConnectionError:
            return b""


def ask(port, requests):
    """All at once, each on its own connection; their answers when the last has ended."""
    load = Load(port)
    streams = [load.send(request) for request in requests]
    load.wait(lambda: all(stream.done for stream in streams))
    return [stream.answer() for stream in streams]


class Answer:
    """A stream that has ended, read: times in seconds of the clock that began it."""

    def __init__(self, stream):
        raw = b"".join(data for _, data in stream.chunks)
        head, _, _ = raw.partition(b"\r\n\r\n")
        self.begun = stream.begun
        self.status = int(head.split(b" ", 2)[1]) if head else 0
        self.text, self.times, self.usage, self.timings, self.reason = "", [], None, None, None
        self.logprobs, self.error = [], None
        if self.status != 200:
            self.error = raw[len(head) :].decode(errors="replace").strip()
            return
        for when, event in events(raw, len(head) + 4, stream.chunks):
            self._take(when, event)

    def _take(self, when, event):
        self.error = event.get("error") or self.error
        self.usage = event.get("usage") or self.usage
        self.timings = event.get("timings") or self.timings
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            text = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or ""
            logprobs = choice.get("logprobs")
            if text or logprobs:
                self.times.append(when)
                self.text += text
            if logprobs:
                self.logprobs.append(logprobs)
            self.reason = choice.get("finish_reason") or self.reason

    def require(self):
        """Ends the program when this request was not answered to its end."""
        if self.error or not self.usage or not self.reason:
            sys.exit(f"request broke: status {self.status}, {self.error or 'no end'}")
        return self

    @property
    def ttft(self):
        return self.times[0] - self.begun

    @property
    def tokens(self):
        return self.usage["completion_tokens"]

    @property
    def cached(self):
        return (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)

    @property
    def computed(self):
        return self.usage["prompt_tokens"] - self.cached


def per_event(answers):
    """Tokens for each event: more than one where a token had no text of its own or several came together."""
    return sum(answer.tokens for answer in answers) / sum(len(answer.times) for answer in answers)


def events(raw, start, chunks):
    """Time and JSON of each server-sent event in an HTTP answer, chunked or not."""
    ends, reached = [], 0
    for _, data in chunks:
        reached += len(data)
        ends.append(reached)
    for end, line in lines(raw, start):
        if line.startswith(b"data: {"):
            yield chunks[min(bisect.bisect_left(ends, end), len(ends) - 1)][0], json.loads(line[6:])


def lines(raw, start):
    """Lines of the body, each with the place in `raw` where it ends."""
    if b"chunked" not in raw[:start].lower():
        pieces = [(start, raw[start:])]
    else:
        pieces = []
        while (stop := raw.find(b"\r\n", start)) >= 0 and (size := int(raw[start:stop], 16)):
            pieces.append((stop + 2, raw[stop + 2 : stop + 2 + size]))
            start = stop + 4 + size
    rest = b""
    for place, piece in pieces:
        offset = 0
        while (stop := piece.find(b"\n", offset)) >= 0:
            yield place + stop, rest + piece[offset:stop]
            rest, offset = b"", stop + 1
        rest += piece[offset:]


def together(answers, per_event):
    """Tokens per second of several streams, from when all have begun to the last event of the first that stops."""
    begin = max(answer.times[0] for answer in answers)
    end = min(answer.times[-1] for answer in answers)
    if end <= begin:
        return None
    return per_event * sum(begin < when <= end for answer in answers for when in answer.times) / (end - begin)
