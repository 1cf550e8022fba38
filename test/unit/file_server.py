"""A server of files on this machine, whose connections break off or fall silent."""

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(BaseHTTPRequestHandler):
    """Serves what it contains; ``cut`` files break off in the middle, where ``resumes`` a range can be asked for."""

    cut: set[str]
    resumes: bool
    silent: set[str]
    contents: dict[str, bytes]
    asked: list[tuple[str, int]]
    paths: list[str]

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        data = self.contents[name]
        begin = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        self.asked.append((name, begin))
        self.paths.append(self.path)
        begin = begin if self.resumes else 0
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if name in self.silent:
            time.sleep(30)
        self.wfile.write(data[begin : len(data) // 2 if name in self.cut else None])
        self.cut.discard(name)

    def log_message(self, *args):
        pass


@contextmanager
def serve(contents: dict[str, bytes]):
    handler = type("Handler", (Server,), {})
    handler.cut, handler.silent, handler.resumes, handler.asked, handler.paths = set(), set(), True, [], []
    handler.contents = contents
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{running.server_port}"
        yield handler
        running.shutdown()
