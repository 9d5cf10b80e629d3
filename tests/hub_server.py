"""A hub on this machine, with the part of the protocol that downloading a file needs."""

import os
import sys
import threading
import types
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``files`` of the repository ``someone/scenes``: in the folder, under the branch and under the commit."""

    def __init__(self):
        self.files = {}  # path -> content
        self.asked = []  # method and path of every request

    def answer(self, request):
        self.asked.append(f"{request.command} {request.path}")
        repository, _, rest = request.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        right = repository == "someone/scenes", revision in ("main", "v1", COMMIT), name in self.files
        codes = ("RepoNotFound", "RevisionNotFound", "EntryNotFound")
        wrong = next((code for code, fine in zip(codes, right, strict=True) if not fine), None)
        content = b"" if wrong else self.files[name]
        request.send_response(404 if wrong else 200)
        if wrong:
            request.send_header("X-Error-Code", wrong)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("ETag", f'"{abs(hash(content)):040x}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)


def of_standard_library(endpoint, cache):
    """Returns a module that replaces huggingface_hub where that is not installed."""

    def hf_hub_download(repo_id, filename, revision=None):
        folder = Path(cache, f"models--{repo_id.replace('/', '--')}", "snapshots")
        path = folder / str(revision) / filename
        if path.is_file():  # a commit
            return str(path)
        url = f"{endpoint}/{repo_id}/resolve/{revision or 'main'}/{filename}"
        try:
            response = urllib.request.urlopen(url)
        except urllib.error.HTTPError as error:
            error.close()
            raise
        with response:
            path = folder / response.headers["X-Repo-Commit"] / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(response.read())
        return str(path)

    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = hf_hub_download
    return module


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Starts a hub that huggingface_hub uses instead of the real one, with an empty cache."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            served.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    endpoint, cache = f"http://127.0.0.1:{http.server_port}", str(tmp_path / "hub")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "NO_PROXY", "127.0.0.1")
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        monkeypatch.setitem(sys.modules, "huggingface_hub", of_standard_library(endpoint, cache))
    else:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    yield served
    http.shutdown()
    http.server_close()
