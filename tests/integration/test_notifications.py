"""Notifications of a whole spooler: the journal, cursors, event loops, streams over HTTP, and webhooks."""

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from standardwebhooks import Webhook
from tenacity import wait_fixed

from postroom import MemoryTransport, RetryPolicy, Settings, Spooler, WebhookTransport
from postroom.errors import CursorMoved, UsageError
from postroom.events import InboundChanged, MessageQueued, NewMessage, RecipientFailed
from postroom.inbound.values import Arrival
from postroom.notifying.event_stream import EventStream
from postroom.notifying.journal import Recorded
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.outcomes import Failed, Reply
from postroom.transports.base import Limits
from postroom.transports.webhook import Timeouts
from tests.support.event_page import make_threading_server
from tests.support.http_receiver import HttpReceiver, Received
from tests.support.spooling import PATIENCE, SENDER, in_threads, message, settled, until

KEY = b"0123456789abcdefghijklmnopqrstuv"


def arrival(subject: object) -> Arrival:
    return Arrival(content=f"From: ann@example.org\r\nSubject: {subject}\r\n\r\nHello.\r\n".encode())


def arrive(spooler: Spooler, *subjects: object) -> None:
    spooler.inlet("test").take([arrival(subject) for subject in subjects])


def subjects(events: Sequence[Recorded]) -> list[str]:
    return [event.subject for _, event in events if isinstance(event, NewMessage)]


# The journal


def test_what_happened_is_kept_and_can_be_read_by_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    refuse = MemoryTransport(answer=lambda _: Failed(Reply("no such user", "5.1.1", 550)))
    with Spooler(path, [refuse], reports=None) as spooler:
        arrive(spooler, "one", "two")
        receipt = spooler.submit(message(), sender=SENDER, to="memory:x")
        settled(spooler)
    with Spooler(path, [refuse], deliver=False) as spooler:
        recorded = list(spooler.events())
        assert [type(event) for _, event in recorded] == [NewMessage, NewMessage, RecipientFailed]
        assert [cursor for cursor, _ in recorded] == [1, 2, 3]
        failed = recorded[2].event
        assert isinstance(failed, RecipientFailed)
        assert (failed.message_id, str(failed.address)) == (receipt.id, "memory:x")
        assert failed.reply == Reply("no such user", "5.1.1", 550)
        assert subjects(list(spooler.events(1, kinds={NewMessage}))) == ["two"]
        with pytest.raises(UsageError, match="MessageQueued is not kept"):
            spooler.events(kinds={MessageQueued})


def test_following_sees_this_process_at_once_and_others_soon(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with Spooler(path, settings=Settings(sync_interval=0.1)) as one, Spooler(path, deliver=False) as other:
        got: list[Recorded] = []

        def follow() -> None:
            got.extend(islice(one.event_log.follow(kinds={NewMessage}), 40))

        thread = threading.Thread(target=follow)
        thread.start()

        def receive(number: int) -> None:
            for each in range(20):
                arrive((one, other)[number], f"{number}.{each}")

        in_threads(2, receive)
        thread.join(PATIENCE)
        assert sorted(subjects(got)) == sorted(
            f"{number}.{each}" for number in range(2) for each in range(20)
        )
        assert [cursor for cursor, _ in got] == sorted(cursor for cursor, _ in got)


def test_a_host_that_was_down_catches_up_once(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    done: list[str] = []
    for run in range(3):
        with Spooler(path) as spooler:
            arrive(spooler, f"{run}.a", f"{run}.b")
            cursor = spooler.cursor("crm", kinds={NewMessage})
            with pytest.raises(ZeroDivisionError), cursor.batch():
                raise ZeroDivisionError
            if run == 1:
                continue
            with cursor.batch() as events:
                done += subjects(events)
    assert done == ["0.a", "0.b", "1.a", "1.b", "2.a", "2.b"]


def test_hosts_with_one_name_get_each_event_once_between_them(tmp_path: Path) -> None:
    path, total = tmp_path / "spool.db", 60
    done: Counter[str] = Counter()
    moved: list[int] = []
    lock = threading.Lock()
    with Spooler(path) as one, Spooler(path, deliver=False) as other:
        arrive(one, *range(total))

        def work(number: int) -> None:
            cursor = (one, other)[number % 2].cursor("crm")
            while True:
                try:
                    with cursor.batch(7) as events:
                        mine = subjects(events)
                except CursorMoved:
                    moved.append(number)
                    continue
                if not mine:
                    return
                with lock:
                    done.update(mine)

        in_threads(4, work)
        assert one.cursor("crm").position == total
    assert done == Counter(str(number) for number in range(total))


def test_an_event_loop_hears_of_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Spooler(tmp_path / "spool.db") as spooler:
            arrive(spooler, "before")
            live = spooler.subscribe_async({NewMessage})
            durable = spooler.subscribe_async({NewMessage}, after=0)
            await asyncio.to_thread(arrive, spooler, "now")
            assert cast("NewMessage", await asyncio.wait_for(anext(live), PATIENCE)).subject == "now"
            got = [
                cast("NewMessage", await asyncio.wait_for(anext(durable), PATIENCE)).subject for _ in range(2)
            ]
            assert got == ["before", "now"]
            assert durable.cursor == 2
            waits = [asyncio.ensure_future(anext(each)) for each in (live, durable)]
            await asyncio.sleep(0)
            assert await asyncio.to_thread(spooler.stop)
            for wait in waits:
                with pytest.raises(StopAsyncIteration):
                    await asyncio.wait_for(wait, PATIENCE)

    asyncio.run(scenario())


# Streams over HTTP


class Lines:
    """A client of a stream that knows no more than lines."""

    def __init__(self, port: int, last: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request("GET", "/events", headers={"Last-Event-ID": last} if last else {})
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.type = self._answer.getheader("Content-Type")
        self.last = last

    def until(self, count: int) -> list[str]:
        """Return the subjects of so many events."""
        found: list[str] = []
        while len(found) < count:
            line = self._answer.readline().decode().rstrip("\n")
            if line.startswith("id: "):
                self.last = line[4:]
            if line.startswith("data: "):
                found.append(json.loads(line[6:])["subject"])
        return found

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


@contextmanager
def serving_wsgi(stream: EventStream) -> Generator[int]:
    with make_threading_server(stream.wsgi) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def serving_asgi(stream: EventStream) -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            cast("Any", stream.asgi), log_config=None, ws="none", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
        thread.start()
        until(lambda: server.started, "uvicorn")
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("serving", [serving_wsgi, serving_asgi])
def test_clients_of_a_server_are_told_and_come_back(tmp_path: Path, serving: Any) -> None:
    with Spooler(tmp_path / "spool.db", settings=Settings(sync_interval=0.1)) as spooler:
        stream = EventStream(spooler, kinds={NewMessage}, heartbeat=0.2)
        with serving(stream) as port:
            clients = [Lines(port) for _ in range(5)]
            assert {(each.status, each.type) for each in clients} == {
                (200, "text/event-stream; charset=utf-8")
            }
            until(lambda: stream.clients == 5, "five clients")
            arrive(spooler, "one", "two")
            assert [each.until(2) for each in clients] == [["one", "two"]] * 5
            for each in clients:
                each.close()
            arrive(spooler, *range(250))
            again = Lines(port, last=clients[0].last)
            assert again.until(250) == [str(number) for number in range(250)]
            until(lambda: stream.clients == 1, "those that left to be noticed")
            spooler.stop()
            until(lambda: stream.clients == 0, "the end")
            again.close()
            with spooler:
                last = Lines(port, last=again.last)
                arrive(spooler, "after")
                assert last.until(1) == ["after"]
                last.close()
            stream.close()


# Webhooks


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path / "received.jsonl") as running:
        yield running


def transport(**more: Any) -> WebhookTransport:
    options: dict[str, Any] = {
        "allow_http": True, "allow_networks": ["127.0.0.1"], "secret": KEY, "timeouts": Timeouts(total=10),
        "retry": RetryPolicy(wait=wait_fixed(0.1)), "limits": Limits(concurrency=4), **more,
    }  # fmt: skip
    return WebhookTransport(**options)


def told(requests: Sequence[Received]) -> list[str]:
    return [json.loads(request.body)["subject"] for request in requests]


def announced(spooler: Spooler, cursor: str, position: int) -> None:
    """Wait until a subscriber's cursor has come to a place."""
    until(lambda: spooler.event_log.cursors().get(cursor, -1) >= position, f"{cursor} at {position}")


def test_a_webhook_is_told_signed(tmp_path: Path, receiver: HttpReceiver) -> None:
    subscriber = WebhookSubscriber(to=receiver.url(), name="crm", kinds={NewMessage}, ordered=True)
    with Spooler(tmp_path / "spool.db", [transport()], subscribers=[subscriber]) as spooler:
        announced(spooler, "webhook:crm", 0)
        arrive(spooler, "Grüße", "two", "three")
        requests = receiver.wait_for(3)
        assert told(requests) == ["Grüße", "two", "three"]
        settled(spooler)
    first = requests[0]
    assert first.headers["content-type"] == "application/json"
    assert cast("Any", Webhook(KEY)).verify(first.body, dict(first.headers))["cursor"] == 1
    assert json.loads(first.body)["type"] == "new_message"
    assert len({request.headers["webhook-id"] for request in requests}) == 3


def test_what_happened_before_it_was_up_is_told_once_however_often_things_die(
    tmp_path: Path, receiver: HttpReceiver
) -> None:
    path, total = tmp_path / "spool.db", 40
    settings = Settings(durable_events="all", sync_interval=0.1, synchronous="off")
    subscriber = WebhookSubscriber(to=receiver.url(), name="crm", kinds={NewMessage}, start="oldest")
    options: dict[str, Any] = {"settings": settings, "subscribers": [subscriber]}
    with Spooler(path, [transport()], settings=settings) as spooler:
        arrive(spooler, *range(10))
    receiver.answer(status=500)
    with Spooler(path, [transport()], **options) as one, Spooler(path, [transport()], **options) as other:
        for number in range(10, total, 10):
            arrive((one, other)[number % 20 // 10], *range(number, number + 10))
            if number == 30:
                receiver.answer()
            one.crash_actor("announcers/crm")
            if number == 20:
                other.crash_actor("core/store")
        last = max(cursor for cursor, _ in one.events(kinds={NewMessage}))
        announced(one, "webhook:crm", last)
        settled(one)
    by_id = {request.headers["webhook-id"]: request for request in receiver.received()}
    # One message each, however often it was tried.
    assert Counter(told(list(by_id.values()))) == Counter(str(number) for number in range(total))


def test_announcements_do_not_announce_themselves(tmp_path: Path, receiver: HttpReceiver) -> None:
    subscriber = WebhookSubscriber(to=receiver.url(), name="all", batch=100)
    settings = Settings(durable_events="all", keep_sent=0.0, sync_interval=0.1)
    with Spooler(
        tmp_path / "spool.db", [transport(), MemoryTransport()], settings=settings, subscribers=[subscriber]
    ) as spooler:
        announced(spooler, "webhook:all", 0)
        arrive(spooler, "one")
        receiver.wait_for(1)
        # The record of the announcement is gone, and events about it are in the journal.
        settled(spooler)
        until(lambda: spooler.event_log.last >= 4, "events about the announcement")
        arrive(spooler, "two")
        requests = receiver.wait_for(2)
        settled(spooler)
        events = [event for request in requests for event in json.loads(request.body)["events"]]
        assert [event["subject"] for event in events] == ["one", "two"]
        assert len(receiver.received()) == 2


def test_changes_of_users_are_told_too(tmp_path: Path, receiver: HttpReceiver) -> None:
    subscriber = WebhookSubscriber(to=receiver.url(), name="crm", kinds={InboundChanged})
    with Spooler(tmp_path / "spool.db", [transport()], subscribers=[subscriber]) as spooler:
        announced(spooler, "webhook:crm", 0)
        arrive(spooler, "one")
        ((_, event),) = spooler.events(kinds={NewMessage})
        assert isinstance(event, NewMessage)
        spooler.mail.mark_read(event.message_id)
        (request,) = receiver.wait_for(1)
        body = json.loads(request.body)
        assert (body["type"], body["change"], body["message_id"]) == (
            "inbound_changed",
            "read",
            event.message_id,
        )
        settled(spooler)


ANNOUNCING = """
import sys
from pathlib import Path
from postroom import MemoryTransport, Settings, Spooler
from postroom.events import NewMessage
from postroom.notifying.subscribers import WebhookSubscriber

subscriber = WebhookSubscriber(to="memory:x", name="crm", kinds={NewMessage}, start="oldest")
with Spooler(Path(sys.argv[1]), [MemoryTransport()], settings=Settings(synchronous="off"), subscribers=[subscriber]):
    sys.stdin.read()
"""


def test_a_process_that_is_killed_while_it_announces_announces_each_event_once(tmp_path: Path) -> None:
    path, total = tmp_path / "spool.db", 1000
    subscriber = WebhookSubscriber(to="memory:x", name="crm", kinds={NewMessage}, start="oldest")
    options: dict[str, Any] = {"settings": Settings(synchronous="off")}
    with Spooler(path, deliver=False, **options) as spooler:
        arrive(spooler, *range(total))
        with subprocess.Popen(
            [sys.executable, "-c", ANNOUNCING, str(path)], stdin=subprocess.PIPE
        ) as process:
            announced(spooler, "webhook:crm", 1)
            process.kill()
    with Spooler(path, [MemoryTransport()], subscribers=[subscriber], **options) as spooler:
        announced(spooler, "webhook:crm", total)
        assert spooler.tally().accepted == {"memory": total}
        assert spooler.audit() == {}
