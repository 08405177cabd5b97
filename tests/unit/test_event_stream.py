"""Events for browsers and event loops, without a server: what is sent, to whom, and what is never lost."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.errors import ConfigurationError, CursorExpired, UsageError
from postroom.events import Event, InboundChanged, MessageEvent, NewMessage, ReceiverChanged
from postroom.notifying.asynchronous import AsyncEvents
from postroom.notifying.event_stream import EventStream
from postroom.notifying.sse import Place, event_frame, place_of
from tests.support.journalling import FakeSource, changed, new_message

PATIENCE = 10.0
KINDS = {NewMessage, InboundChanged, ReceiverChanged}


@pytest.fixture
def source() -> Iterator[FakeSource]:
    made = FakeSource()
    yield made
    made.stop()
    deadline = time.monotonic() + PATIENCE
    while any(thread.name.startswith("postroom-event-stream") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread of a stream goes on"
        time.sleep(0.005)


def up(number: int) -> ReceiverChanged:
    return ReceiverChanged(float(number), "imap", "up", str(number))


class Parsed:
    """What a browser makes of a stream (WHATWG HTML section 9.2.6), written down independently of what writes it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.comments = 0
        self.last_id = ""
        self.retry = 0
        self._name, self._data, self._id = "", "", ""
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line.decode())

    def _line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            self.last_id = self._id
            if self._data:
                self.events.append((self._name or "message", self._data.removesuffix("\n"), self.last_id))
            self._name = self._data = ""
        elif not name:
            self.comments += 1
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id":
            self._id = value
        elif name == "retry":
            self.retry = int(value)

    @property
    def numbers(self) -> list[int]:
        return [
            int(json.loads(data)["message_id"][1:]) for _, data, _ in self.events if '"message_id"' in data
        ]


class Visit:
    """One request to a stream's WSGI callable."""

    def __init__(
        self, stream: EventStream, *, after: str = "", last: str = "", method: str = "GET", **more: str
    ) -> None:
        environ = {"REQUEST_METHOD": method, "QUERY_STRING": after and f"after={after}", **more}
        if last:
            environ["HTTP_LAST_EVENT_ID"] = last
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = cast("Any", stream.wsgi(environ, self._start))
        self.chunks = iter(self.body)
        self.parsed = Parsed()

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = int(status[:3])
        self.headers = dict(headers)

    def read(self) -> bytes:
        chunk: bytes = next(self.chunks)
        self.parsed.feed(chunk)
        return chunk

    def until(self, holds: Callable[[Parsed], bool]) -> Parsed:
        deadline = time.monotonic() + PATIENCE
        while not holds(self.parsed):
            assert time.monotonic() < deadline, self.parsed.events
            self.read()
        return self.parsed

    def leave(self) -> None:
        self.body.close()


def stream_of(source: FakeSource, **more: Any) -> EventStream:
    options: dict[str, Any] = {"kinds": KINDS, "heartbeat": 0.05, **more}
    return EventStream(source, **options)


def only_changes(event: Event) -> bool:
    return isinstance(event, InboundChanged)


def broken_for_short_ids(event: Event) -> bool:
    assert isinstance(event, MessageEvent)
    return len(event.message_id) // (len(event.message_id) - 2) > 100


# The wire


def test_an_event_on_the_wire() -> None:
    parsed = Parsed()
    parsed.feed(event_frame(changed(3), 17))
    ((name, data, last),) = parsed.events
    assert (name, last) == ("inbound_changed", "17")
    assert json.loads(data) == {
        "type": "inbound_changed", "at": "1970-01-01T00:00:03.000Z", "message_id": "m3", "folder": "Inbox",
        "change": "read", "cursor": 17,
    }  # fmt: skip


@given(st.text())
def test_no_text_breaks_the_frame(subject: str) -> None:
    event = NewMessage(0.0, "m1", "Inbox", subject, "a", "r", "IPM.Note", 1, seen=False)
    parsed = Parsed()
    parsed.feed(event_frame(event, 1) + event_frame(changed(2), None))
    assert [name for name, _, _ in parsed.events] == ["new_message", "inbound_changed"]
    assert json.loads(parsed.events[0][1])["subject"] == subject.encode("utf-8", "replace").decode()
    assert b"\r" not in event_frame(event, 1)


@pytest.mark.parametrize(
    ("header", "query", "place"),
    [
        ("", "", Place(None)),
        ("", "after=7&x=1", Place(7)),
        ("9", "after=7", Place(9)),
        (" 9 ", "", Place(9)),
        ("", "after=1&after=2", Place(2)),
        ("other", "after=7", Place(None, lost=True)),
        ("9" * 30, "", Place(None, lost=True)),
        ("", "after=", None),
        ("", "after=-1", None),
        ("", "after=x", None),
        ("", "after=²", None),
    ],
)
def test_where_a_client_goes_on(header: str, query: str, place: Place | None) -> None:
    assert place_of(header, query) == place


# WSGI


def test_a_browser_is_told_what_happens(source: FakeSource) -> None:
    source.journal.write(new_message(1))
    visit = Visit(stream_of(source, retry=1.5))
    assert visit.status == 200
    assert visit.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert visit.headers["Cache-Control"] == "no-store"
    assert visit.headers["X-Accel-Buffering"] == "no"
    visit.read()
    assert (visit.parsed.retry, visit.parsed.last_id) == (1500, "1")
    source.journal.write(new_message(2), changed(2))
    parsed = visit.until(lambda p: len(p.events) == 2)
    assert [(name, last) for name, _, last in parsed.events] == [
        ("new_message", "2"),
        ("inbound_changed", "3"),
    ]
    visit.leave()


def test_who_comes_back_misses_nothing(source: FakeSource) -> None:
    stream = stream_of(source)
    first = Visit(stream)
    source.journal.write(new_message(1))
    first.until(lambda p: p.numbers == [1])
    first.leave()
    source.journal.write(*[new_message(number) for number in range(2, 500)])
    second = Visit(stream, last=first.parsed.last_id, after="0")
    source.journal.write(new_message(500))
    assert second.until(lambda p: len(p.numbers) >= 499).numbers == list(range(2, 501))
    second.leave()


def test_who_was_cut_off_before_the_first_event_knows_where_it_was(source: FakeSource) -> None:
    source.journal.write(new_message(1))
    stream = stream_of(source)
    first = Visit(stream)
    first.read()
    first.leave()
    source.journal.write(new_message(2))
    second = Visit(stream, last=first.parsed.last_id)
    assert second.until(lambda p: bool(p.events)).numbers == [2]
    second.leave()


def test_the_list_s_own_cursor_can_be_named(source: FakeSource) -> None:
    source.journal.write(new_message(1), new_message(2), new_message(3))
    stream = stream_of(source)
    for after, numbers in (("1", [2, 3]), ("0", [1, 2, 3])):
        visit = Visit(stream, after=after)
        assert visit.until(lambda p, n=numbers: len(p.events) == len(n)).numbers == numbers  # type: ignore[misc] # bound at once
        visit.leave()


@pytest.mark.parametrize("last", ["2", "99", "something"])
def test_who_cannot_be_told_everything_is_told_so(source: FakeSource, last: str) -> None:
    source.journal.write(*[new_message(number) for number in range(1, 9)])
    source.journal.purge(5)
    visit = Visit(stream_of(source), last=last)
    parsed = visit.until(lambda p: bool(p.events))
    assert parsed.events == [("reset", '{"type":"reset","cursor":8}', "8")]
    source.journal.write(new_message(9))
    assert visit.until(lambda p: len(p.events) == 2).numbers == [9]
    visit.leave()


def test_silence_is_broken_by_comments_that_move_the_place(source: FakeSource) -> None:
    visit = Visit(stream_of(source, filter=only_changes))
    visit.until(lambda p: p.comments == 1)
    source.journal.write(new_message(1), new_message(2))
    assert visit.until(lambda p: p.last_id == "2").events == []
    visit.leave()


def test_what_is_not_kept_comes_live_without_a_place(source: FakeSource) -> None:
    visit = Visit(stream_of(source))
    visit.read()
    source.journal.write(new_message(1))
    visit.until(lambda p: len(p.events) == 1)
    assert [subscription.kinds for subscription in source.subscriptions] == [(ReceiverChanged,)]
    source.happen(up(1), new_message(99))
    name, data, last = visit.until(lambda p: len(p.events) == 2).events[1]
    assert (name, last) == ("receiver_changed", "1")
    assert "cursor" not in json.loads(data)
    visit.leave()


def test_who_sees_what_is_decided_by_the_host(source: FakeSource) -> None:
    def may(environ: Mapping[str, Any]) -> bool | Callable[[Event], bool] | None:
        user: str | None = environ.get("USER")
        if user in {"root", "nobody"}:
            return user == "root"
        return None if user is None else lambda event: isinstance(event, NewMessage) and event.folder == user

    stream = stream_of(source, authorize=may)
    assert Visit(stream).status == Visit(stream, USER="nobody").status == 403
    everything, own = Visit(stream, USER="root"), Visit(stream, USER="Ann")
    source.journal.write(new_message(1, "Bob"), new_message(2, "Ann"))
    assert everything.until(lambda p: len(p.events) == 2).numbers == [1, 2]
    assert own.until(lambda p: bool(p.events)).numbers == [2]
    everything.leave()
    own.leave()


def test_a_filter_that_raises_shows_nothing(source: FakeSource, caplog: pytest.LogCaptureFixture) -> None:
    visit = Visit(stream_of(source, filter=broken_for_short_ids))
    source.journal.write(new_message(1), new_message(100))
    visit.until(lambda p: p.last_id == "2")
    assert visit.parsed.numbers == []
    assert "the filter of a client raised" in caplog.text
    visit.leave()


def test_other_methods_and_bad_requests(source: FakeSource) -> None:
    stream = stream_of(source)
    head = Visit(stream, method="HEAD")
    assert (head.status, list(head.chunks)) == (200, [])
    assert head.headers["Content-Type"].startswith("text/event-stream")
    options = Visit(stream, method="OPTIONS")
    assert (options.status, options.headers["Allow"], list(options.chunks)) == (204, "GET, HEAD, OPTIONS", [])
    post = Visit(stream, method="POST")
    assert (post.status, post.headers["Allow"], list(post.chunks)) == (
        405,
        "GET, HEAD, OPTIONS",
        [b"Method Not Allowed\n"],
    )
    assert Visit(stream, after="x").status == 400
    assert stream.clients == 0


def test_there_is_room_for_so_many(source: FakeSource) -> None:
    stream = stream_of(source, max_clients=2, retry=7)
    first, second = Visit(stream), Visit(stream)
    third = Visit(stream)
    assert (third.status, third.headers["Retry-After"]) == (503, "7")
    first.leave()
    first.leave()
    fourth = Visit(stream)
    assert (fourth.status, stream.clients) == (200, 2)
    second.leave()
    fourth.leave()


def test_a_spooler_that_does_not_run_has_nothing_to_tell(source: FakeSource) -> None:
    stream = stream_of(source)
    visit = Visit(stream)
    visit.read()
    source.stop()
    assert list(visit.chunks) == []
    assert Visit(stream).status == 503
    source.journal.running = True
    again = Visit(stream, last="0")
    source.journal.write(new_message(1))
    assert again.until(lambda p: bool(p.events)).numbers == [1]
    again.leave()


def test_a_stream_that_is_closed_ends_its_clients(source: FakeSource) -> None:
    stream = stream_of(source, heartbeat=60.0)
    visit = Visit(stream)
    visit.read()
    source.journal.write(new_message(1))
    visit.until(lambda p: bool(p.events))
    stream.close()
    assert list(visit.chunks) == []
    assert stream.clients == 0
    stream.close()


def test_a_slow_client_loses_nothing_that_is_kept_and_harms_nobody(source: FakeSource) -> None:
    stream = stream_of(source, buffer=5)
    slow, quick = Visit(stream), Visit(stream)
    slow.read()
    quick.read()
    for number in range(1, 301):
        source.journal.write(new_message(number))
        source.happen(up(number))
        if number % 3 == 0:
            quick.until(lambda p, n=number: p.numbers[-1:] == [n])  # type: ignore[misc] # bound at once
    assert quick.parsed.numbers == list(range(1, 301))
    assert slow.until(lambda p: p.numbers[-1:] == [300]).numbers == list(range(1, 301))
    live = [name for name, _, _ in slow.parsed.events if name == "receiver_changed"]
    slow.leave()
    quick.leave()
    assert 0 < len(live) <= 5
    assert stream.dropped >= 300 - len(live)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["write", "read", "back", "burst"]), max_size=25), st.integers(1, 4))
def test_however_slow_and_often_cut_off_each_event_comes_once(steps: list[str], buffer: int) -> None:
    source = FakeSource()
    stream = stream_of(source, buffer=buffer, heartbeat=0.005)
    visit = Visit(stream)
    visit.read()
    got: list[int] = []
    written, last = 0, visit.parsed.last_id
    for step in steps:
        if step in {"write", "burst"}:
            for _ in range(1 if step == "write" else 7):
                written += 1
                source.journal.write(new_message(written), changed(0))
        elif step == "read":
            visit.read()
        else:
            visit.leave()
            got += [number for number in visit.parsed.numbers if number]
            # As a browser that was cut off before it read anything: it still knows the place from before.
            last = visit.parsed.last_id or last
            visit = Visit(stream, last=last)
    source.journal.write(new_message(written + 1))
    visit.until(lambda p: p.numbers[-1:] == [written + 1])
    got += [number for number in visit.parsed.numbers if number]
    visit.leave()
    source.stop()
    assert got == list(range(1, written + 2))


def test_trouble_with_the_journal_passes(source: FakeSource, caplog: pytest.LogCaptureFixture) -> None:
    visit = Visit(stream_of(source))
    visit.read()
    troubles = [1]

    def trouble() -> None:
        if troubles:
            troubles.pop()
            raise OSError("disk")

    source.journal.on_read = trouble
    source.journal.write(new_message(1))
    assert visit.until(lambda p: bool(p.events)).numbers == [1]
    assert "cannot read the journal" in caplog.text
    visit.leave()


@pytest.mark.parametrize("option", ["heartbeat", "max_clients", "buffer", "retry"])
def test_options_are_checked(source: FakeSource, option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        stream_of(source, **{option: -1})
    with pytest.raises(UsageError, match="kinds"):
        EventStream(source, kinds=[int])  # type: ignore[list-item] # pyright: ignore[reportArgumentType] - the point


def test_a_coroutine_cannot_authorize_for_wsgi(source: FakeSource) -> None:
    async def may(_: object) -> bool:
        return True

    stream = stream_of(source, authorize=may)
    with pytest.raises(ConfigurationError, match="coroutine"):
        Visit(stream)


def test_a_forked_child_serves_its_own_clients(source: FakeSource) -> None:
    stream = stream_of(source)
    parents = Visit(stream)
    parents.read()
    # What a fork leaves in the child: the thread, not alive, and the clients.
    fanout = cast("Any", stream)._fanout
    assert fanout._thread is not None
    running, fanout._thread = fanout._thread, threading.Thread()
    own = Visit(stream)
    source.journal.write(new_message(1))
    assert own.until(lambda p: bool(p.events)).numbers == [1]
    assert stream.clients == 1
    assert running.is_alive()
    own.leave()


# ASGI


class Page:
    """One request to a stream's ASGI callable."""

    def __init__(
        self, stream: EventStream, method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http", "method": method, "headers": headers or [], "query_string": b"", "user": "ann",
        }  # fmt: skip
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.parsed = Parsed()
        self.task = asyncio.ensure_future(stream.asgi(self.scope, self._receive, cast("Any", self.sent.put)))
        self._begun = False

    async def _receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def start(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.sent.get(), PATIENCE)

    async def until(self, holds: Callable[[Parsed], bool]) -> Parsed:
        while not holds(self.parsed):
            self.parsed.feed((await asyncio.wait_for(self.sent.get(), PATIENCE))["body"])
        return self.parsed


@asynccontextmanager
async def page_of(stream: EventStream, **more: Any) -> AsyncGenerator[Page]:
    page = Page(stream, **more)
    yield page
    page.gone.set()
    await asyncio.wait_for(page.task, PATIENCE)


def test_an_asgi_server_can_serve_it_too(source: FakeSource) -> None:
    async def scenario() -> None:
        source.journal.write(*[new_message(number) for number in range(1, 300)])
        stream = stream_of(source)
        async with page_of(stream, headers=[(b"last-event-id", b"100")]) as page:
            start = await page.start()
            assert start["status"] == 200
            assert (b"x-accel-buffering", b"no") in start["headers"]
            await page.until(lambda p: len(p.numbers) == 199)
            source.journal.write(new_message(300))
            assert (await page.until(lambda p: len(p.numbers) == 200)).numbers == list(range(101, 301))
            await page.until(lambda p: p.comments > 0)
            assert stream.clients == 1
        assert stream.clients == 0

    asyncio.run(scenario())


def test_an_asgi_client_that_leaves_is_noticed_at_once(source: FakeSource) -> None:
    async def scenario() -> None:
        stream = stream_of(source, heartbeat=60.0)
        async with page_of(stream) as page:
            await page.start()
            await page.start()
        assert stream.clients == 0
        page = Page(stream)
        await page.start()
        page.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await page.task
        assert stream.clients == 0
        page = Page(stream)
        await page.start()
        stream.close()
        await asyncio.wait_for(page.task, PATIENCE)

    asyncio.run(scenario())


def test_asgi_authorizes_and_refuses(source: FakeSource) -> None:
    async def may(scope: Mapping[str, Any]) -> bool:
        await asyncio.sleep(0)
        return str(scope["user"]) == "root"

    async def scenario() -> None:
        stream = stream_of(source, authorize=may)
        for method, status, body in (
            ("GET", 403, b"Forbidden\n"), ("HEAD", 403, b""), ("OPTIONS", 204, b""),
            ("PUT", 405, b"Method Not Allowed\n"),
        ):  # fmt: skip
            async with page_of(stream, method=method) as page:
                assert (await page.start())["status"] == status
                assert (await page.start())["body"] == body
        async with page_of(stream_of(source), method="HEAD") as page:
            assert (await page.start())["status"] == 200
        source.stop()
        async with page_of(stream_of(source)) as page:
            assert (await page.start())["status"] == 503

    asyncio.run(scenario())


def test_asgi_life_and_websockets(source: FakeSource) -> None:
    async def scenario() -> None:
        stream = stream_of(source)
        sent: list[str] = []
        letters = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, Any]:
            return {"type": next(letters)}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message["type"])

        await stream.asgi({"type": "lifespan"}, cast("Any", receive), send)
        await stream.asgi({"type": "websocket"}, cast("Any", receive), send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]

    asyncio.run(scenario())


# Asynchronous iterators


def events_of(source: FakeSource, **more: Any) -> AsyncEvents:
    options: dict[str, Any] = {"kinds": {NewMessage}, **more}
    return AsyncEvents(source.subscribe, source.event_log, **options)


async def some(events: AsyncEvents, count: int) -> list[str]:
    return [
        cast("NewMessage", await asyncio.wait_for(anext(events), PATIENCE)).message_id for _ in range(count)
    ]


def test_live_events_come_as_they_happen(source: FakeSource) -> None:
    async def scenario() -> None:
        async with events_of(source) as events:
            source.happen(new_message(1), changed(9))
            assert await some(events, 1) == ["m1"]
            waiting = asyncio.ensure_future(some(events, 2))
            await asyncio.sleep(0)
            thread = threading.Thread(target=source.happen, args=(new_message(2), new_message(3)))
            thread.start()
            assert await waiting == ["m2", "m3"]
            thread.join()
            assert events.cursor is None
        assert source.subscriptions == []
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    asyncio.run(scenario())


def test_who_is_too_slow_for_live_events_loses_some_and_knows(source: FakeSource) -> None:
    async def scenario() -> None:
        async with events_of(source, limit=3) as events:
            source.happen(*[new_message(number) for number in range(1, 6)])
            assert await some(events, 3) == ["m1", "m2", "m3"]
            assert events.dropped == 2

    asyncio.run(scenario())


def test_behind_a_cursor_nothing_is_lost_or_repeated(source: FakeSource) -> None:
    async def scenario() -> None:
        source.journal.write(*[new_message(number) for number in range(1, 1200)])
        async with events_of(source, after=100, limit=1) as events:
            assert await some(events, 1099) == [f"m{number}" for number in range(101, 1200)]
            assert events.cursor == 1199
            waiting = asyncio.ensure_future(some(events, 1))
            source.journal.write(changed(1), new_message(1200))
            assert await waiting == ["m1200"]
            assert events.cursor == 1201
            assert events.dropped == 0

    asyncio.run(scenario())


def test_a_wait_that_is_given_up_loses_nothing(source: FakeSource) -> None:
    async def scenario() -> None:
        async with events_of(source, after=0) as events:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.01)
            source.journal.write(new_message(1))
            assert await some(events, 1) == ["m1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [None, 0])
def test_it_ends_with_the_spooler_after_what_was_before(source: FakeSource, after: int | None) -> None:
    async def scenario() -> None:
        events = events_of(source, after=after)
        source.happen(new_message(1))
        source.journal.write(new_message(1))
        assert await some(events, 1) == ["m1"]
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)
        source.stop()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [None, 0])
def test_closing_ends_a_wait_elsewhere(source: FakeSource, after: int | None) -> None:
    async def scenario() -> None:
        source.event_log.interval = 60.0
        events = events_of(source, after=after)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.02)
        await events.aclose()
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(scenario())


def test_an_iterator_that_is_dropped_leaves_nothing_behind(source: FakeSource) -> None:
    async def scenario() -> None:
        events = events_of(source)
        source.happen(new_message(1))
        async for _ in events:
            break
        del events
        gc.collect()
        assert source.subscriptions == []

    asyncio.run(scenario())


def test_a_loop_that_is_gone_harms_nobody(source: FakeSource) -> None:
    async def scenario() -> AsyncEvents:
        events = events_of(source)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        return events

    events = asyncio.run(scenario())
    source.happen(new_message(1))
    asyncio.run(events.aclose())


def test_what_is_asked_for_is_checked_at_once(source: FakeSource) -> None:
    source.journal.write(*[new_message(number) for number in range(1, 9)])
    source.journal.purge(5)
    with pytest.raises(CursorExpired):
        events_of(source, after=2)
    with pytest.raises(UsageError, match="never given"):
        events_of(source, after=9)
    with pytest.raises(UsageError, match="not kept"):
        events_of(source, after=0, kinds={ReceiverChanged})
    with pytest.raises(UsageError, match="limit"):
        events_of(source, limit=0)
    assert source.subscriptions == []
