"""A model hub on the loopback that serves one file, and can stop in the middle of it.

hub.py PORT FILE PAUSE_AT GO_ON: after PAUSE_AT bytes an answer waits until the file GO_ON exists.
"""

import http.server
import os
import re
import sys
import time

PORT, FILE, PAUSE_AT, GO_ON = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
SIZE = os.path.getsize(FILE)


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(SIZE - start))
        self.send_header("ETag", '"one"')
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        self.end_headers()
        with open(FILE, "rb") as file:
            file.seek(start)
            while chunk := file.read(1 << 20):
                if file.tell() > PAUSE_AT:
                    while not os.path.exists(GO_ON):
                        time.sleep(0.05)
                self.wfile.write(chunk)


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Hub).serve_forever()
