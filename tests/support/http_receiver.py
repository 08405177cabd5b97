"""An HTTP server in a process of its own that records what it receives and answers as it is told.

The same file is the server (run as a script, standard library only) and its remote control (`HttpReceiver`).

How a request is answered is said by the query of its URL, or for all requests by `HttpReceiver.answer`:

    status=503          the status code (200)
    times=2             only for the first two requests to the path; then 200
    retry_after=7       a Retry-After header
    location=/x         a Location header
    body=text           the text of the answer ("ok")
    size=100000         a text of that many octets instead
    delay=0.5           seconds before it answers
    how=never           it reads the request and never answers
        drop            it closes the connection instead of answering
        reset           it resets the connection instead of answering
        drop_reused     it does so only from the second request of a connection on
        mid             it closes in the middle of the body
        trickle         it sends the head of the answer one octet at a time, for ever
        garbage         it answers something that is not HTTP
        close           it answers, then closes without having said so
        cookie          it answers with a cookie
        gzip            it says that the text is compressed

A request is on record, one JSON line in an append-only file, before it is answered. The server ends with the
process that started it.
"""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

HOST = "127.0.0.1"
CONTROL = "/_answer"
START_SECONDS = 20.0
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its path with query, headers by lower-case name, body, and the connection it came over."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    time: float


class HttpReceiver:
    """Starts, asks, kills and restarts the server. For one thread.

    Args:
        record: the file that requests are recorded in; a restarted server appends to it.
        certificate: a PEM file with certificate chain and key; then it speaks https.
    """

    def __init__(self, record: Path, certificate: Path | None = None) -> None:
        self.record = record
        self.certificate = certificate
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the port that it had before if any."""
        assert self._process is None, "it runs already"
        command = [sys.executable, "-I", __file__, str(self.record), str(self.port)]
        if self.certificate is not None:
            command.append(str(self.certificate))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        assert process.stdout is not None
        with _deadline(process, START_SECONDS):
            line = process.stdout.readline()
        assert line, "the receiver did not start"
        self.port = int(line)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def url(self, path: str = "/hook", **query: str | float) -> str:
        """Return a URL of it, for example `url(status=503, retry_after=7)`."""
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{HOST}:{self.port}{path}" + (f"?{urlencode(query)}" if query else "")

    def answer(self, **query: str | float) -> None:
        """Set how requests without a query are answered from now on; nothing given: 200."""
        assert self.certificate is None, "only over plain http"
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("PUT", f"{CONTROL}?{urlencode(query)}")
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def received(self, path: str | None = None) -> list[Received]:
        """Return what was recorded so far, of one path (without query) if given."""
        if not self.record.exists():
            return []
        *lines, _ = self.record.read_bytes().split(b"\n")  # what follows the last line end is not complete
        found = [_received(json.loads(line)) for line in lines]
        return [each for each in found if path is None or urlsplit(each.path).path == path]

    def wait_for(self, count: int, timeout: float = 20.0, path: str | None = None) -> list[Received]:
        """Return what was recorded once that is `count` requests or more.

        Raises:
            AssertionError: it is fewer after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while len(found := self.received(path)) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} requests after {timeout} seconds"
            time.sleep(POLL_SECONDS)
        return found

    def resume(self) -> None:
        """Let the process go on after :func:`tests.support.signals.suspend`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL ends a suspended process too) and wait; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def _deadline(process: "subprocess.Popen[bytes]", seconds: float) -> Any:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _received(line: dict[str, Any]) -> Received:
    return Received(
        path=line["path"],
        headers={name.lower(): value for name, value in line["headers"]},
        body=base64.b64decode(line["body"]),
        connection=line["connection"],
        time=line["time"],
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, record: Path, tls: ssl.SSLContext | None) -> None:
        super().__init__((HOST, port), _Handler)
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._tls = tls
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self.default: dict[str, str] = {}
        self.connections = 0

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's thread: a client that never shakes hands must not keep the others waiting.
        with contextlib.suppress(OSError):
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what tests are about."""

    def next_connection(self) -> int:
        with self._lock:
            self.connections += 1
            # Distinct over restarts as well.
            return self.connections * 10_000_000 + os.getpid()

    def write(self, entry: dict[str, Any]) -> None:
        os.write(self._record, json.dumps(entry).encode() + b"\n")

    def plan(self, path: str) -> dict[str, str]:
        query = dict(parse_qsl(urlsplit(path).query)) or self.default
        with self._lock:
            self._seen[path] += 1
            over = "times" in query and self._seen[path] > int(query["times"])
        return {} if over else query

    def reset(self, query: dict[str, str]) -> None:
        with self._lock:
            self.default = query


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, _Server)
        self.receiver = self.server
        self.number = self.receiver.next_connection()
        self.count = 0

    def do_PUT(self) -> None:
        self.receiver.reset(dict(parse_qsl(urlsplit(self.path).query)))
        self._head(200, 0)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.count += 1
        entry = {
            "path": self.path,
            "headers": self.headers.items(),
            "body": base64.b64encode(body).decode(),
            "connection": self.number,
            "time": time.time(),
        }
        self.receiver.write(entry)
        plan = self.receiver.plan(self.path)
        time.sleep(float(plan.get("delay", "0")))
        how: dict[str, Callable[[dict[str, str]], None]] = {
            "never": self._never,
            "drop": self._drop,
            "reset": self._reset,
            "drop_reused": self._drop_reused,
            "mid": self._mid,
            "trickle": self._trickle,
            "garbage": self._garbage,
            "close": self._close,
        }
        how.get(plan.get("how", ""), self._answer)(plan)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))

    def _answer(self, plan: dict[str, str]) -> None:
        body = plan.get("body", "ok").encode()
        if "size" in plan:
            body = b"x" * int(plan["size"])
        self._head(int(plan.get("status", "200")), len(body))
        for option, header in (("retry_after", "Retry-After"), ("location", "Location")):
            if option in plan:
                self.send_header(header, plan[option])
        for way, header, value in (
            ("cookie", "Set-Cookie", "tracked=yes; Path=/"),
            ("gzip", "Content-Encoding", "gzip"),
        ):
            if plan.get("how") == way:
                self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def _never(self, _: dict[str, str]) -> None:
        self.rfile.read(1)  # until the client goes away
        self.close_connection = True

    def _drop(self, _: dict[str, str]) -> None:
        self.close_connection = True

    def _reset(self, _: dict[str, str]) -> None:
        # Closing with a linger time of 0 sends RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _drop_reused(self, plan: dict[str, str]) -> None:
        if self.count > 1:
            self.close_connection = True
        else:
            self._answer(plan)

    def _mid(self, plan: dict[str, str]) -> None:
        self._head(int(plan.get("status", "200")), 1000)
        self.end_headers()
        self.wfile.write(b"only the beginning")
        self.close_connection = True

    def _trickle(self, _: dict[str, str]) -> None:
        for octet in b"HTTP/1.1 200 OK\r\nX-Filling: ":
            self.wfile.write(bytes([octet]))
        while True:
            self.wfile.write(b"x")
            time.sleep(0.02)

    def _garbage(self, _: dict[str, str]) -> None:
        self.wfile.write(b"220 mail.example.org ESMTP\r\n")
        self.close_connection = True

    def _close(self, plan: dict[str, str]) -> None:
        self._answer(plan)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Nobody reads it."""


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(record: str, port: str, certificate: str | None = None) -> None:
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = _Server(int(port), Path(record), tls)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(server.server_address[1], flush=True)  # noqa: T201 - how the parent learns the port
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
