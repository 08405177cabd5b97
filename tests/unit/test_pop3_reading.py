"""What a POP3 server sends of a message, back into its octets; and servers that cannot be used."""

import io
import poplib
import socket
import threading
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import WorldError
from postroom.receivers.pop3 import Pop3Receiver
from postroom.receivers.pop3_client import Pop3Access, Pop3Connection, read_message
from postroom.testing.inlets import TrialSpool

lines = st.lists(
    st.lists(st.sampled_from([b".", b"a", b"\n", b"\r", b"\xff", b""]), max_size=6).map(b"".join), max_size=8
)


def stuffed(content: bytes) -> bytes:
    """Return content as RFC 1939 section 3 sends it."""
    assert not content or content.endswith(b"\r\n")
    parts = content.split(b"\r\n")[:-1]
    return b"".join((b"." if part.startswith(b".") else b"") + part + b"\r\n" for part in parts) + b".\r\n"


@given(lines, st.integers(1, 5))
def test_any_message_in_pieces_of_any_size(parts: list[bytes], size: int) -> None:
    content = b"".join(part + b"\r\n" for part in parts)
    stream = io.BytesIO(stuffed(content) + b"+OK next\r\n")

    def readline(most: int) -> bytes:
        # Pieces below three octets would cut the last line itself, as no stream with real pieces does.
        return stream.readline(min(most, 3 + size))

    assert read_message(readline, 10_000) == content
    assert stream.read() == b"+OK next\r\n", "nothing beyond it was read"


@given(lines, st.integers(0, 20))
def test_what_is_too_large_is_read_to_its_end(parts: list[bytes], limit: int) -> None:
    content = b"".join(part + b"\r\n" for part in parts)
    stream = io.BytesIO(stuffed(content) + b"+OK next\r\n")
    assert read_message(stream.readline, limit) == (content if len(content) <= limit else None)
    assert stream.read() == b"+OK next\r\n"


@given(lines, st.data())
def test_what_breaks_off_is_no_message(parts: list[bytes], data: st.DataObject) -> None:
    whole = stuffed(b"".join(part + b"\r\n" for part in parts))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(poplib.error_proto, match="closed"):
        read_message(io.BytesIO(whole[:cut]).readline, 10_000)


class Scripted:
    """A server that greets, and says one thing after the other, for each line that it gets; for one connection."""

    def __init__(self, *answers: bytes, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(self._answers[0])
            for answer in self._answers[1:]:
                if not lines.readline():
                    return
                client.sendall(answer)


def connected(server: Scripted) -> Pop3Connection:
    access = Pop3Access(
        host="127.0.0.1", port=server.port, tls="none", context=None, user="desk", password="hidden",
        timeout=20.0, connect_timeout=20.0,
    )  # fmt: skip
    return Pop3Connection(access)


def test_a_server_without_uidl_is_refused_with_a_reason() -> None:
    with Scripted(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"-ERR what?\r\n") as server:
        connection = connected(server)
        connection.open()
        with pytest.raises(WorldError, match=r"UIDL: -ERR what\?; without UIDL \(RFC 1939"):
            connection.listing()
        connection.close()


def test_a_connection_that_breaks_off_in_the_list_is_no_list() -> None:
    with Scripted(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n1 one\r\n") as server:
        connection = connected(server)
        connection.open()
        with pytest.raises(WorldError, match="EOF") as caught:
            connection.listing()
        connection.close()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("greeting", [b"-ERR go away\r\n", b"", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_greeting_that_is_none_leaves_no_socket_behind(greeting: bytes) -> None:
    with Scripted(greeting) as server, pytest.raises(WorldError, match="connecting"):
        connected(server).open()


def test_equal_uids_are_taken_one_after_the_other() -> None:
    # RFC 1939 section 7 lets a server give equal messages the same unique id.
    lists = b"+OK\r\n1 same\r\n2 same\r\n.\r\n", b"+OK\r\n1 5\r\n2 5\r\n.\r\n"
    ok = b"+OK\r\n"
    spool = TrialSpool()
    with Scripted(ok, ok, ok, ok) as server:
        receiver = Pop3Receiver("127.0.0.1", server.port, user="desk", password="hidden", tls="none")
        session = receiver.open(spool.inlet())
    port = receiver.port
    for again, listing in enumerate((lists, (b"+OK\r\n1 same\r\n.\r\n", b"+OK\r\n1 5\r\n.\r\n"))):
        answers = (ok, ok, ok, *listing, b"+OK\r\nhi\r\n.\r\n", b"+OK gone\r\n", b"+OK bye\r\n")
        with Scripted(*answers, port=port):
            assert session.poll() == 1
        assert len(spool.arrivals) == again + 1
        assert spool.ledger == {}
    session.close()
