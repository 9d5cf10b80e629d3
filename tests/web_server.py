"""A web server that closes connections, states wrong lengths and refuses."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Serves one file, with the faults that the settings choose."""

    def __init__(self):
        self.content = b""
        self.kind = "application/octet-stream"
        self.ranges = True
        self.longest = None  # bytes of an answer before the connection breaks off
        self.claims = 0  # bytes more than there are
        self.says_length = True
        self.status = 200
        self.asked = []  # the Range of every request

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status != 200:
            request.send_error(self.status)
            return
        total, start = len(self.content) + self.claims, 0
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{total}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            request.send_response(200)
        request.send_header("Content-Type", self.kind)
        if self.says_length:
            request.send_header("Content-Length", str(total - start))
        request.end_headers()
        stop = len(self.content) if self.longest is None else start + self.longest
        request.wfile.write(self.content[start:stop])


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; its ``url`` is that of its one file. Downloads retry without a pause."""
    monkeypatch.setattr("iodine_pl.files.download._PAUSE", 0.0)
    settings = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            settings.answer(self)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    settings.url = f"http://127.0.0.1:{http.server_port}/released"
    yield settings
    http.shutdown()
    http.server_close()
