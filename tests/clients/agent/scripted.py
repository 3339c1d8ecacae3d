"""Leads a real agent through one tool call with a model too small to think of it: a proxy before the real server that
narrows what the engine may say next. The words are the script's; choosing, parsing and wording them is the server's.

python scripted.py SERVER COMMAND WORDS: prints its own address, then forwards until it is killed."""

import http.client
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SERVER, COMMAND, WORDS = sys.argv[1:]


def narrowed(body):
    """An agent's request in which the first answer can only be the call, and the next one only the words."""
    tools = {tool["name"]: tool for tool in body.get("tools") or []}
    if "Bash" not in tools:
        return body
    results = [
        block
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]
    if results:
        print("result:", json.dumps(results[-1]["content"]), file=sys.stderr, flush=True)
        return {**body, "tools": [], "tool_choice": None, "regex": re.escape(WORDS)}
    schema = {
        "type": "object",
        "properties": {
            "command": {"type": "string", "enum": [COMMAND]},
            "description": {"type": "string", "enum": ["Runs it"]},
        },
        "required": ["command", "description"],
        "additionalProperties": False,
    }
    # The small model has to begin a call by itself; it goes on as it was begun.
    messages = list(body["messages"])
    for number in range(4):
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Bash"}
        call["input"] = {"command": COMMAND, "description": "Runs it"}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Again."}
        messages.append({"role": "assistant", "content": [call]})
        messages.append({"role": "user", "content": [result]})
    return {
        **body,
        "messages": messages,
        "max_tokens": 200,
        "temperature": 0,
        "tools": [{"name": "Bash", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "Bash", "disable_parallel_tool_use": True},
        "thinking": {"type": "disabled"},
    }


class Forward(BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if self.command == "POST" and urlsplit(self.path).path == "/v1/messages":
            body = json.dumps(narrowed(json.loads(body))).encode()
        there = http.client.HTTPConnection(urlsplit(SERVER).netloc, timeout=600)
        headers = {"content-type": "application/json", "x-api-key": "none"}
        there.request(self.command, self.path, body, headers)
        response = there.getresponse()
        self.send_response(response.status)
        self.send_header("content-type", response.headers.get("content-type", "text/plain"))
        self.send_header("connection", "close")
        self.end_headers()
        while piece := response.read1():
            self.wfile.write(piece)
            self.wfile.flush()
        self.close_connection = True

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_):
        pass


with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as proxy:
    print(f"http://127.0.0.1:{proxy.server_port}", flush=True)
    proxy.serve_forever()
