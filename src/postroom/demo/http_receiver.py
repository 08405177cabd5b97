"""The demo's HTTP receiver, a process of its own: it verifies signatures and records what it takes.

``python -m postroom.demo.http_receiver FOLDER PORT`` prints the port once it listens, and ends when its standard
input does. The secret comes in the environment. The signature is verified as the Standard Webhooks
specification describes it, with no code of Postroom's.
"""

import base64
import binascii
import hashlib
import hmac
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from postroom.demo.recording import Recorder

SECRET_VARIABLE = "POSTROOM_DEMO_SECRET"  # noqa: S105 - the name of a variable
TOLERANCE = 300.0
"""Seconds by which a timestamp may differ from the receiver's clock."""


def verify(secret: str, headers: Any, body: bytes, now: float) -> bool:
    """Return whether a request is signed with the secret (``whsec_…``) and fresh. Pure."""
    identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(int(stamp) - now) > TOLERANCE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.digest(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256)
    for signature in headers.get("webhook-signature", "").split():
        version, _, encoded = signature.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if version == "v1" and hmac.compare_digest(given, expected):
            return True
    return False


class Receiver(ThreadingHTTPServer):
    """Records requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, port: int, secret: str) -> None:
        super().__init__(("127.0.0.1", port), RequestHandler)
        self.recorder = Recorder(folder)
        self.secret = secret


class RequestHandler(BaseHTTPRequestHandler):
    """Answers 204 to what is signed, 401 to what is not."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Take one webhook."""
        receiver = self.server
        assert isinstance(receiver, Receiver)  # noqa: S101 - nothing else makes handlers
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        genuine = verify(receiver.secret, self.headers, body, time.time())
        facts = {"path": self.path, "genuine": genuine, "webhook_id": self.headers.get("webhook-id", "")}
        receiver.recorder.record(body, facts)
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Nobody reads it."""


def main() -> None:
    """Serve until standard input ends."""
    receiver = Receiver(Path(sys.argv[1]), int(sys.argv[2]), os.environ[SECRET_VARIABLE])
    thread = threading.Thread(target=receiver.serve_forever, daemon=True)
    thread.start()
    sys.stdout.write(f"{receiver.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    receiver.shutdown()
    receiver.server_close()


if __name__ == "__main__":
    main()
