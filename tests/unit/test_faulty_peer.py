"""The proxy that cuts, delays and swallows, at the places where it is told to."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from postroom.testing.faults import FaultyPeer, Trouble

PATIENCE = 20.0


class Echo:
    """Answers each line with two: "got" and the line."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as file:
                try:
                    for line in file:
                        self.lines.append(line)
                        client.sendall(b"got\n" + line)
                except OSError:
                    continue

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultyPeer]:
    with FaultyPeer(*echo.address) as faulty:
        yield faulty


def talk(proxy: FaultyPeer, *lines: bytes, timeout: float = PATIENCE) -> list[bytes]:
    """Say lines, each after the answer to the one before; return what was answered."""
    answers: list[bytes] = []
    with socket.create_connection(proxy.address, timeout=timeout) as client, client.makefile("rb") as file:
        try:
            for line in lines:
                client.sendall(line)
                for _ in range(2):
                    answer = file.readline()
                    if not answer.endswith(b"\n"):
                        return [*answers, answer] if answer else answers
                    answers.append(answer)
        except (ConnectionError, TimeoutError):
            pass
    return answers


def test_undisturbed_everything_passes_and_is_counted(proxy: FaultyPeer) -> None:
    assert talk(proxy, b"a\n", b"bc\n") == [b"got\n", b"a\n", b"got\n", b"bc\n"]
    assert proxy.connections == 1
    passed = proxy.passed("to peer")
    assert (passed.lines, passed.octets) == (2, 5)
    passed = proxy.passed("to client")
    assert (passed.lines, passed.octets) == (4, 13)
    assert not proxy.struck.is_set()


@pytest.mark.parametrize(
    ("trouble", "heard", "answered"),
    [
        (Trouble("to peer", 0), [], []),
        (Trouble("to peer", 1), [b"a\n"], []),
        (Trouble("to peer", 1, "octets"), [], []),
        (Trouble("to client", 0), [b"a\n"], []),
        (Trouble("to client", 1), [b"a\n"], [b"got\n"]),
        (Trouble("to client", 2, "octets"), [b"a\n"], [b"go"]),
        (Trouble("to client", 3), [b"a\n", b"b\n"], [b"got\n", b"a\n", b"got\n"]),
    ],
)
def test_a_connection_is_cut_where_it_was_said(
    echo: Echo, proxy: FaultyPeer, trouble: Trouble, heard: list[bytes], answered: list[bytes]
) -> None:
    proxy.arm(trouble)
    answers = talk(proxy, b"a\n", b"b\n")
    assert proxy.struck.is_set()
    if trouble.direction == "to client":
        assert answers == answered
        assert echo.lines == heard
    else:
        # What the peer heard it may have answered before the cut.
        assert b"".join(b"got\n" + line for line in heard).startswith(b"".join(answers))
        # The end of a line that was cut may arrive as one without an end; what was held back does not.
        assert [line for line in echo.lines if line.endswith(b"\n")] in (heard, [])
    before = len(echo.lines)
    assert talk(proxy, b"c\n") == [b"got\n", b"c\n"], "it happens once"
    assert echo.lines[before:][-1] == b"c\n"


def test_what_is_swallowed_leaves_the_connection_open(echo: Echo, proxy: FaultyPeer) -> None:
    proxy.arm(Trouble("to client", 2, kind="swallow"))
    assert talk(proxy, b"a\n", b"b\n", timeout=0.3) == [b"got\n", b"a\n"]
    assert proxy.struck.is_set()
    assert echo.lines == [b"a\n"], "nothing passes in the other direction either"


def test_what_is_delayed_arrives_whole(proxy: FaultyPeer) -> None:
    proxy.arm(Trouble("to client", 1, kind="delay", seconds=0.05))
    assert talk(proxy, b"a\n", b"b\n") == [b"got\n", b"a\n", b"got\n", b"b\n"]
    assert proxy.struck.is_set()
    assert proxy.passed("to client").lines == 4


def test_steps_are_every_line_and_the_last_octets(proxy: FaultyPeer) -> None:
    talk(proxy, b"a\n", b"b\n")
    steps = proxy.steps()
    assert [each.after for each in steps if each.direction == "to peer" and each.unit == "lines"] == [0, 1, 2]
    assert [each.after for each in steps if each.direction == "to peer" and each.unit == "octets"] == [3, 4]
    assert [each.after for each in steps if each.direction == "to client" and each.unit == "lines"] == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip


def test_many_steps_are_thinned_evenly(proxy: FaultyPeer) -> None:
    talk(proxy, *[b"x\n"] * 50)
    lines = [each.after for each in proxy.steps(5) if each.direction == "to client" and each.unit == "lines"]
    assert lines == [0, 25, 50, 75, 100]
    octets = [each.after for each in proxy.steps(3, "octets") if each.direction == "to peer"]
    assert octets == [0, 50, 100]


def test_cutting_ends_what_is_open(proxy: FaultyPeer) -> None:
    with socket.create_connection(proxy.address, timeout=PATIENCE) as client:
        client.sendall(b"a\n")
        assert client.recv(3) == b"got"
        proxy.arm(None)
        rest = client.makefile("rb")
        with rest:
            assert rest.read() in {b"\n", b"\na\n"}


def test_a_peer_that_is_not_there(echo: Echo, proxy: FaultyPeer) -> None:
    echo.close()
    assert talk(proxy, b"a\n") == []
