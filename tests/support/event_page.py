"""A web page with a list of mail that refreshes itself, served by a process of its own.

The same file is the server (run as a script) and what starts and kills it (`EventPage`).
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from postroom import Spooler
from postroom.events import NewMessage
from postroom.notifying.event_stream import EventStream

HOST = "127.0.0.1"
START_SECONDS = 20.0

PAGE = """<!doctype html><meta charset="utf-8"><title>Inbox</title><link rel="icon" href="data:,">
<ul id="list"></ul><script>
window.seen = []; window.opened = 0; window.resets = 0;
async function refresh() {
  const answer = await (await fetch("/list")).json();
  document.getElementById("list").innerHTML = answer.subjects.map((subject) => `<li>${subject}</li>`).join("");
  return answer.cursor;
}
refresh().then((cursor) => {
  const source = new EventSource("/events?after=" + cursor);
  source.onopen = () => { window.opened += 1; };
  source.addEventListener("reset", () => { window.resets += 1; refresh(); });
  source.addEventListener("new_message", (event) => {
    window.seen.push(JSON.parse(event.data).subject);
    refresh();
  });
});
</script>"""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A WSGI server with a thread for each connection."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients come and go."""


def make_threading_server(app: Callable[..., Iterable[bytes]], port: int = 0) -> ThreadingServer:
    """Return a server for `app` on the loopback."""
    return make_server(HOST, port, app, ThreadingServer, _Quiet)


def application(spooler: Spooler) -> Callable[..., Iterable[bytes]]:
    """Return the page, the list and the stream."""
    stream = EventStream(spooler, kinds={NewMessage}, retry=0.1, heartbeat=0.5)

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/events":
            return stream.wsgi(environ, start_response)
        if path == "/list":
            # The cursor first: what comes in between is in the list and announced once more, never neither.
            cursor = spooler.event_log.last
            subjects = [
                event.subject
                for _, event in spooler.events(kinds={NewMessage})
                if isinstance(event, NewMessage)
            ]
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"cursor": cursor, "subjects": subjects}).encode()]
        if path == "/":
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [PAGE.encode()]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b""]

    return app


class EventPage:
    """Starts, kills and restarts the server. For one thread."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def start(self) -> None:
        """Start it, on the port that it had before if any."""
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "tests.support.event_page", str(self.spool), str(self.port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
        self._process = process
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        timer.join()
        assert line, "the server did not start"
        self.port = int(line)

    def kill(self) -> None:
        """Kill it (SIGKILL); nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def main() -> None:
    """Serve until the process that started this one closes our input."""
    spool, port = Path(sys.argv[1]), int(sys.argv[2])
    with (
        Spooler(spool, deliver=False) as spooler,
        make_threading_server(application(spooler), port) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
