"""A server as the article's Flask app is: multipart in, JSON out. With the standard library alone.

    python article_server.py PORT

`GET /ping` is its health. An image is the multipart field `data`; its label is the image's first
bytes. `POST /sick` makes `/ping` fail, `POST /well` undoes it; `?sleep=S` answers later.
"""

from __future__ import annotations

import email
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sick = False

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        pass

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(503 if Handler.sick else 200, {"pid": os.getpid()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        if url.path in ("/sick", "/well"):
            Handler.sick = url.path == "/sick"
            return self.answer(200, {})
        time.sleep(float(parse_qs(url.query).get("sleep", ["0.005"])[0]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts: list[Any] = list(email.message_from_bytes(head + body).walk())
        named = {
            part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True)
            for part in parts
        }
        if not named.get("data"):
            return self.answer(400, {"error": "no field data"})
        return self.answer(200, {"daisy": 0.98, "rose": 0.02})


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
