"""The webhook transport against a real HTTP server in another process."""

import errno
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme
from standardwebhooks import Webhook

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome
from postroom.replies import ReplyRow, Verdict
from postroom.transports.base import Session
from postroom.transports.webhook import Timeouts, WebhookTransport, outcome_of, outcome_of_silence
from postroom.transports.webhook_client import HttpClient
from postroom.transports.webhook_exchange import NoAnswerError
from postroom.transports.webhook_guard import AddressGuard, read_networks
from tests.support.http_receiver import HttpReceiver
from tests.support.signals import suspend

CONTENT = "Subject: hi\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode()
KEY = b"0123456789abcdefghijklmnopqrstuv"
QUICK = Timeouts(connect=2, write=1, read=1, total=2)
PATIENT = Timeouts(connect=5, write=20, read=20, total=60)
PATIENCE = 20.0


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path / "received.jsonl") as running:
        yield running


@pytest.fixture
def session(receiver: HttpReceiver) -> Iterator[Session]:
    del receiver
    opened = transport().open()
    yield opened
    opened.close()


def transport(**options: Any) -> WebhookTransport:
    defaults: dict[str, Any] = {"allow_http": True, "allow_networks": ["127.0.0.1"], "timeouts": PATIENT}
    return WebhookTransport(**(defaults | options))


def delivery_to(*urls: str, key: int = 77, content: bytes = CONTENT) -> Delivery:
    targets = tuple(Target(index, parse_address(url)) for index, url in enumerate(urls))
    return Delivery(key, "app@example.org", targets, content, created=1_700_000_000.0)


def send(session: Session, url: str, key: int = 77) -> Outcome:
    (outcome,) = outcomes_of(session, delivery_to(url, key=key))
    return outcome


def outcomes_of(session: Session, delivery: Delivery) -> list[Outcome]:
    outcomes = session.send(delivery)
    assert isinstance(outcomes, Sequence)
    return list(outcomes)


def test_a_receiver_can_verify_what_it_gets(receiver: HttpReceiver) -> None:
    opened = transport(
        secret=[KEY, b"older-key-older-key-older"], headers={"Authorization": "Bearer t"}
    ).open()
    outcome = send(opened, receiver.url())
    opened.close()
    assert isinstance(outcome, Delivered)
    assert (outcome.reply.code, outcome.reply.text) == (200, "ok")
    assert outcome.reply.remote == f"127.0.0.1:{receiver.port}"
    (request,) = receiver.received()
    for secret in (KEY, b"older-key-older-key-older"):
        document = Webhook(secret).verify(request.body, dict(request.headers))
        assert document["text"] == "Grüße\n"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer t"
    assert request.headers["idempotency-key"] == request.headers["webhook-id"]


def test_raw_is_the_message_itself(receiver: HttpReceiver) -> None:
    opened = transport(body="raw").open()
    send(opened, receiver.url())
    opened.close()
    (request,) = receiver.received()
    assert request.body == CONTENT
    assert request.headers["content-type"] == "message/rfc822"


def test_one_connection_serves_many_requests(receiver: HttpReceiver, session: Session) -> None:
    for key in range(1, 21):
        assert isinstance(send(session, receiver.url(), key), Delivered)
    requests = receiver.received()
    assert len({request.headers["webhook-id"] for request in requests}) == 20
    assert len({request.connection for request in requests}) == 1


def test_two_attempts_have_one_id(receiver: HttpReceiver, session: Session) -> None:
    url = receiver.url(status=503, times=1)
    assert isinstance(send(session, url), Deferred)
    assert isinstance(send(session, url), Delivered)
    first, second = receiver.received()
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_temporary_answers(receiver: HttpReceiver, session: Session, status: int) -> None:
    outcome = send(session, receiver.url(status=status, retry_after=7, body="come back\r\n\tlater"))
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after == 7
    assert outcome.reply.text == "come back later"
    assert outcome.reply.code == status


@pytest.mark.parametrize("status", [400, 410, 413])
def test_permanent_answers(receiver: HttpReceiver, session: Session, status: int) -> None:
    outcome = send(session, receiver.url(status=status))
    assert isinstance(outcome, Failed)
    assert outcome.reply.code == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_named_and_not_followed(receiver: HttpReceiver, session: Session, status: int) -> None:
    outcome = send(session, receiver.url(status=status, location="/elsewhere"))
    assert not isinstance(outcome, Delivered)
    if status in {301, 308}:
        assert isinstance(outcome, Failed)
    assert "/elsewhere" in outcome.reply.text
    assert receiver.received("/elsewhere") == []


def test_a_long_answer_is_read_no_further_than_needed(receiver: HttpReceiver, session: Session) -> None:
    outcome = send(session, receiver.url(size=50_000_000))
    assert isinstance(outcome, Delivered)
    assert len(outcome.reply.text) <= 1000
    assert isinstance(send(session, receiver.url()), Delivered)


def test_a_compressed_answer_is_not_unpacked(receiver: HttpReceiver, session: Session) -> None:
    outcome = send(session, receiver.url(how="gzip"))
    assert isinstance(outcome, Delivered)
    assert outcome.reply.text == "OK"


def test_the_status_decides_although_the_text_breaks_off(receiver: HttpReceiver, session: Session) -> None:
    outcome = send(session, receiver.url(how="mid"))
    assert isinstance(outcome, Delivered)
    assert outcome.reply.text == "only the beginning"


@pytest.mark.parametrize("how", ["never", "drop", "reset", "trickle", "garbage"])
def test_no_answer_is_temporary(receiver: HttpReceiver, how: str) -> None:
    opened = transport(timeouts=QUICK).open()
    outcome = send(opened, receiver.url(how=how))
    assert isinstance(outcome, Deferred), outcome
    assert outcome.reply.status == ("4.5.0" if how == "garbage" else "4.4.2")
    assert outcome.reply.code is None
    assert outcome.reply.text
    assert not outcome.destination_down, "it connected: other requests may fare better"
    assert isinstance(send(opened, receiver.url()), Delivered), "the session is still good"
    opened.close()


def test_no_time_at_all_is_temporary(receiver: HttpReceiver) -> None:
    opened = transport(timeouts=Timeouts(total=1e-9)).open()
    outcome = send(opened, receiver.url())
    opened.close()
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.2"


def test_a_kept_connection_that_was_closed_costs_no_attempt(receiver: HttpReceiver, session: Session) -> None:
    url = receiver.url(how="close")
    assert isinstance(send(session, url, 1), Delivered)
    assert isinstance(send(session, url, 2), Delivered)
    receiver.restart()
    assert isinstance(send(session, receiver.url(), 3), Delivered)
    assert [request.headers["webhook-id"][-3:] for request in receiver.received()] == ["1_0", "2_0", "3_0"]


def test_a_request_that_crossed_the_closing_is_made_again_once(
    receiver: HttpReceiver, session: Session
) -> None:
    url = receiver.url(how="drop_reused")
    assert isinstance(send(session, url, 1), Delivered)
    assert isinstance(send(session, url, 2), Delivered)
    ids = [request.headers["webhook-id"] for request in receiver.received()]
    assert len(ids) == 3
    assert ids[1] == ids[2]
    assert isinstance(send(session, receiver.url(how="drop"), 3), Deferred)
    dropped = [each for each in receiver.received() if "how=drop_" not in each.path]
    assert len({each.connection for each in dropped}) == len(dropped) <= 2


def test_connection_refused_concerns_the_host(receiver: HttpReceiver, session: Session) -> None:
    receiver.kill()
    outcome = send(session, receiver.url())
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.1"
    assert outcome.reply.remote == f"127.0.0.1:{receiver.port}"
    assert outcome.destination_down


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_says_when_to_come_back_is_left_alone(
    receiver: HttpReceiver, session: Session, status: int
) -> None:
    outcome = send(session, receiver.url(status=status, retry_after=7))
    assert isinstance(outcome, Deferred)
    assert (outcome.destination_down, outcome.retry_after) == (True, 7)
    until = formatdate(time.time() + 3000, usegmt=True)
    outcome = send(session, receiver.url(status=status, retry_after=until))
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after is not None
    assert 2900 < outcome.retry_after <= 3000


def test_rows_of_ones_own_decide_first(receiver: HttpReceiver) -> None:
    own = transport(
        replies=[
            ReplyRow(Verdict.FAILED, codes="200", text="ok=false"),
            ReplyRow(Verdict.FAILED, codes="404", why="our receivers do not come back"),
            ReplyRow(Verdict.DESTINATION_DOWN, codes="500", text="maintenance", retry_after=600),
            ReplyRow(Verdict.TRANSPORT_DOWN, codes="401", retry_after=60),
        ]
    )
    assert list(own.reply_table()[:4]) == list(own.replies)
    opened = own.open()
    assert isinstance(send(opened, receiver.url(body="ok=false")), Failed)
    assert isinstance(send(opened, receiver.url(status=404)), Failed)
    outcome = send(opened, receiver.url(status=500, body="Maintenance"))
    assert isinstance(outcome, Deferred)
    assert (outcome.destination_down, outcome.retry_after) == (True, 600)
    with pytest.raises(TransportDown) as caught:
        send(opened, receiver.url(status=401))
    assert caught.value.retry_after == 60
    # What was posted for another target before is settled now.
    mixed = outcomes_of(opened, delivery_to(receiver.url("/a"), receiver.url("/b", status=401)))
    opened.close()
    assert isinstance(mixed[0], Delivered)
    assert isinstance(mixed[1], Deferred)
    assert mixed[1].retry_after == 60


def test_a_machine_without_sockets_is_everybodys_outage(
    session: Session, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("postroom.transports.webhook_wire.socket.socket", exhausted)
    with pytest.raises(TransportDown, match="Too many open files"):
        send(session, receiver.url())
    monkeypatch.undo()
    assert isinstance(send(session, receiver.url()), Delivered)


def test_each_target_has_its_own_outcome(receiver: HttpReceiver, session: Session) -> None:
    urls = (
        receiver.url("/a"),
        receiver.url("/b", status=410),
        receiver.url("/c", status=503),
        receiver.url("/d"),
    )
    delivery = delivery_to(*urls)
    delivery = Delivery(
        delivery.key, "", (*delivery.targets, Target(4, Address("sms", "+15550100"))), delivery.content
    )
    outcomes = outcomes_of(session, delivery)
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Deferred, Delivered, NotMine]
    assert [json.loads(each.body)["recipient"] for each in receiver.received()] == list(urls)


def test_neither_proxies_nor_cookies_are_heeded(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    opened = transport().open()
    assert isinstance(send(opened, receiver.url(how="cookie"), 1), Delivered)
    assert isinstance(send(opened, receiver.url(how="cookie"), 2), Delivered)
    opened.close()
    for request in receiver.received():
        assert "cookie" not in request.headers
        assert "authorization" not in request.headers


def test_a_closed_session_says_so(session: Session) -> None:
    session.close()
    with pytest.raises(SessionStale):
        session.send(delivery_to("https://127.0.0.1:9/"))


def test_an_outage_ends_and_the_same_session_goes_on(receiver: HttpReceiver, session: Session) -> None:
    receiver.answer(status=503, retry_after=1)
    assert isinstance(send(session, receiver.url()), Deferred)
    receiver.kill()
    assert isinstance(send(session, receiver.url()), Deferred)
    receiver.start()
    assert isinstance(send(session, receiver.url()), Delivered)
    assert len(receiver.wait_for(2)) == 2


# What the guard is for


LOOPBACK_SPELLINGS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"),
    *("[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "[::]"),
]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
def test_no_spelling_of_a_private_address_gets_through(receiver: HttpReceiver, host: str) -> None:
    opened = WebhookTransport(allow_http=True, timeouts=QUICK).open()
    # Past the parser of addresses, which refuses some of these.
    target = Target(0, Address("http", f"//{host}:{receiver.port}/hook"))
    (outcome,) = outcomes_of(opened, Delivery(1, "", (target,), CONTENT))
    opened.close()
    assert isinstance(outcome, Failed), outcome
    # httpx refuses the octal one as a URL, before the guard sees an address.
    assert outcome.reply.status == ("5.1.3" if host.startswith("0177") else "5.7.1")
    assert receiver.received() == []


@pytest.mark.parametrize(
    "value",
    [
        "//user:pass@127.0.0.1/",
        "//",
        "///path",
        "//127.0.0.1:0/",
        "//127.0.0.1:x/",
        "//\u2028/",
    ],
)
def test_an_unusable_url_fails_and_keeps_its_password_to_itself(session: Session, value: str) -> None:
    (outcome,) = outcomes_of(session, Delivery(1, "", (Target(0, Address("http", value)),), CONTENT))
    assert isinstance(outcome, Failed), outcome
    assert outcome.reply.status == "5.1.3"
    assert "pass@" not in outcome.reply.text


class Resolver:
    """Answers each question with the next list of addresses."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in self.answers.pop(0)
        ]


def client(
    resolver: Any, *networks: str, tls: ssl.SSLContext | None = None, timeouts: Timeouts = PATIENT
) -> HttpClient:
    guard = AddressGuard(allow_networks=read_networks(networks))
    return HttpClient(guard, timeouts, tls or ssl.create_default_context(), resolve=resolver)


def test_the_checked_address_is_the_one_connected_to(receiver: HttpReceiver) -> None:
    # The second answer would pass for whoever resolved again after the check.
    resolver = Resolver(["127.0.0.2"], ["127.0.0.1"])
    asking = client(resolver, "127.0.0.1")
    with pytest.raises(NoAnswerError) as caught:
        asking.post(f"http://rebinding.example.org:{receiver.port}/", {}, b"x")
    assert caught.value.reply.status == "5.7.1"
    assert resolver.asked == ["rebinding.example.org"]
    asking.post(f"http://rebinding.example.org:{receiver.port}/", {}, b"x")
    asking.close()
    (request,) = receiver.received()
    assert request.headers["host"] == f"rebinding.example.org:{receiver.port}"


def test_private_addresses_among_public_ones_are_left_out(receiver: HttpReceiver) -> None:
    asking = client(Resolver(["127.0.0.2", "10.0.0.1", "127.0.0.1"]), "127.0.0.1")
    assert asking.post(f"http://mixed.example.org:{receiver.port}/", {}, b"x").code == 200
    asking.close()


def test_the_next_address_is_tried_when_one_refuses(receiver: HttpReceiver) -> None:
    # Nothing listens on 127.0.0.2: the receiver is bound to 127.0.0.1 alone.
    asking = client(Resolver(["127.0.0.2", "127.0.0.1"]), "127.0.0.0/8")
    assert asking.post(f"http://several.example.org:{receiver.port}/", {}, b"x").code == 200
    asking.close()


def test_many_hosts_take_turns_on_few_connections(receiver: HttpReceiver) -> None:
    asking = client(Resolver(*[["127.0.0.1"]] * 45), "127.0.0.1")
    for turn in range(3):
        for number in range(15):
            reply = asking.post(f"http://host{number}.example.org:{receiver.port}/{turn}", {}, b"x")
            assert reply.code == 200
    asking.close()
    assert len(receiver.received()) == 45


def test_an_ipv6_literal_keeps_its_brackets_in_the_host_header(receiver: HttpReceiver) -> None:
    asking = client(Resolver(["127.0.0.1"]), "127.0.0.1")
    asking.post(f"http://[::1]:{receiver.port}/", {}, b"x")
    asking.close()
    assert receiver.received()[0].headers["host"] == f"[::1]:{receiver.port}"


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
def test_a_name_that_does_not_resolve_is_temporary(error: Exception) -> None:
    asking = client(Mock(side_effect=error))
    with pytest.raises(NoAnswerError) as caught:
        asking.post("https://nowhere.example.org/", {}, b"x")
    asking.close()
    assert caught.value.reply.status.startswith("4.")
    assert caught.value.reply.remote == "nowhere.example.org"
    outcome = outcome_of_silence(caught.value)
    assert isinstance(outcome, Deferred)
    assert outcome.destination_down


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(tmp_path: Path, authority: trustme.CA) -> Iterator[HttpReceiver]:
    pem = tmp_path / "server.pem"
    authority.issue_cert("hooks.example.org").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with HttpReceiver(tmp_path / "secure.jsonl", pem) as running:
        yield running


def test_the_certificate_is_checked_against_the_name_not_the_address(
    secure: HttpReceiver, authority: trustme.CA
) -> None:
    tls = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    asking = client(Resolver(["127.0.0.1"], ["127.0.0.1"]), "127.0.0.1", tls=tls)
    assert asking.post(f"https://hooks.example.org:{secure.port}/", {}, b"x" * 100_000).code == 200
    assert asking.post(f"https://hooks.example.org:{secure.port}/", {}, b"x").code == 200
    with pytest.raises(NoAnswerError) as caught:
        asking.post(f"https://other.example.org:{secure.port}/", {}, b"x")
    asking.close()
    assert caught.value.reply.status == "4.7.5"
    assert [len(each.body) for each in secure.received()] == [100_000, 1]
    assert len({each.connection for each in secure.received()}) == 1


def test_an_unknown_authority_is_a_temporary_failure(secure: HttpReceiver) -> None:
    opened = transport(allow_http=False).open()
    outcome = send(opened, secure.url())
    opened.close()
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.7.5"
    assert outcome.destination_down
    assert secure.received() == []


def test_success_and_failure_go_on_record_with_host_and_tls(
    secure: HttpReceiver, authority: trustme.CA
) -> None:
    tls = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    asking = client(Resolver(["127.0.0.1"], ["127.0.0.1"]), "127.0.0.1", tls=tls, timeouts=QUICK)
    url = f"https://hooks.example.org:{secure.port}/"
    first, again = (asking.post(url, {}, b"x") for _ in range(2))
    version, cipher = first.tls.split(" ")
    assert version in {"TLSv1.2", "TLSv1.3"}
    assert cipher.startswith(("TLS_", "ECDHE"))
    assert again.tls == first.tls, "a connection that was kept"
    with pytest.raises(NoAnswerError) as caught:
        asking.post(f"{url}?how=never", {}, b"x")
    asking.close()
    assert outcome_of(first, 0.0).reply.tls == first.tls
    reply = outcome_of_silence(caught.value).reply
    assert (reply.status, reply.remote, reply.tls) == ("4.4.2", f"hooks.example.org:{secure.port}", first.tls)


def test_a_tls_handshake_that_hangs_ends(receiver: HttpReceiver) -> None:
    opened = transport(timeouts=QUICK).open()
    suspend(receiver.pid)
    outcome = send(opened, receiver.url().replace("http:", "https:"))
    opened.close()
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.2"
    assert outcome.destination_down


# Aborting


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_abort_ends_a_hung_exchange_in_every_phase(receiver: HttpReceiver, scheme: str) -> None:
    opened = transport().open()
    suspend(receiver.pid)  # over https the handshake hangs, over http the answer
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(send(opened, receiver.url().replace("http:", f"{scheme}:"))),
        daemon=True,
    )
    thread.start()
    thread.join(0.3)
    assert thread.is_alive(), outcomes
    opened.abort()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    opened.close()
    assert isinstance(outcomes[0], Deferred)


def test_an_aborted_client_connects_no_more(receiver: HttpReceiver) -> None:
    asking = client(Resolver(["127.0.0.1"]), "127.0.0.1")
    asking.abort()
    with pytest.raises(NoAnswerError) as caught:
        asking.post(receiver.url(), {}, b"x")
    asking.close()
    assert caught.value.reply.status.startswith("4.4.")
    assert receiver.received() == []
