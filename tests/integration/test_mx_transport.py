"""Straight to mail exchangers: a real DNS server, real SMTP servers on several loopback addresses."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.resolver
import pytest
import trustme

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Failed, Outcome, Relayed
from postroom.spooler import Spooler
from postroom.testing.transports import Arrival, TransportConformance, TransportHarness, outcome_list
from postroom.throttles import DestinationLimits, Rate, Throttle
from postroom.tokens import Tokens
from postroom.transports.base import Limits, Transport
from postroom.transports.mx import MX_DESTINATION, MxTransport
from postroom.transports.mx_session import MxSession
from postroom.transports.smtp_timeouts import SmtpTimeouts
from tests.support.dns_server import DnsServer
from tests.support.signals import suspend
from tests.support.smtp_server import FEATURES, Script, SmtpServer

CONTENT = b"From: app@client.example\r\nSubject: mx\r\n\r\nHi\r\n"
ME = "mail.client.example"
TLS = ["STARTTLS", *FEATURES]
QUICK = SmtpTimeouts(connect=5, greeting=5, command=5, mail=5, rcpt=5, data=5, done=10, stall=5)


@dataclass
class World:
    """Servers that last for all tests: ``one``, ``two`` and ``three`` are scripted, ``safe`` has a certificate."""

    one: SmtpServer
    two: SmtpServer
    three: SmtpServer
    safe: SmtpServer
    authority: trustme.CA

    @property
    def port(self) -> int:
        return self.one.port


ZONE = {
    "one.example": {"A": ["127.0.0.2"]},
    "two.example": {"A": ["127.0.0.3"]},
    "three.example": {"A": ["127.0.0.4"]},
    "safe.example": {"A": ["127.0.0.5"]},
    "dead.example": {"A": ["127.0.0.6"]},
    "ann.example": {"MX": ["10 one.example.", "20 two.example."]},
    "bob.example": {"MX": ["10 two.example."]},
    "dora.example": {"MX": ["10 dead.example.", "20 gone.example.", "30 one.example.", "40 two.example."]},
    "down.example": {"MX": ["10 dead.example."]},
    "locked.example": {"MX": ["10 safe.example.", "20 one.example."]},
    "implicit.example": {"A": ["127.0.0.2"]},
    "alias.example": {"CNAME": ["ann.example."]},
    "null.example": {"MX": ["0 ."]},
    "bare.example": {"TXT": ["nothing"]},
    "loop.example": {"MX": ["10 mail.client.example."]},
    "backup.example": {"MX": ["10 one.example.", "20 mx.client.example.", "30 two.example."]},
    "hostless.example": {"MX": ["10 gone.example."]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mx")
    authority = trustme.CA()
    authority.issue_cert("safe.example").private_key_and_cert_chain_pem.write_to_path(folder / "safe.pem")
    with SmtpServer(folder / "one", host="127.0.0.2") as one:
        port = one.port
        engine = ("--engine", "aiosmtpd", "--cert", str(folder / "safe.pem"))
        with (
            SmtpServer(folder / "two", host="127.0.0.3", port=port) as two,
            SmtpServer(folder / "three", host="127.0.0.4", port=port) as three,
            SmtpServer(folder / "safe", host="127.0.0.5", port=port, options=engine) as safe,
        ):
            yield World(one, two, three, safe, authority)


@pytest.fixture
def servers(world: World) -> World:
    """Return the servers, well-behaved and with nothing received so far."""
    for server in (world.one, world.two, world.three):
        server.script(Script(transcript=True, keep_content=True))
    for server in (world.one, world.two, world.three, world.safe):
        server.record.write_bytes(b"")
    return world


@pytest.fixture
def names() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


@pytest.fixture
def session_of(servers: World, names: DnsServer) -> Iterator[Any]:
    opened: list[MxSession] = []

    def make(**options: Any) -> MxSession:
        opened.append(transport_of(servers, names, **options).open())
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def transport_of(servers: World, names: DnsServer, **options: Any) -> MxTransport:
    given: dict[str, Any] = {
        "hostname": ME,
        "own_hosts": ["mx.client.example"],
        "resolver": names.resolver(),
        "port": servers.port,
        "allow_private": True,
        "timeouts": QUICK,
    }
    return MxTransport(**{**given, **options})


def send(session: MxSession, *to: str) -> list[Outcome]:
    delivery = delivery_to(*to)
    return outcome_list(session.send(delivery), delivery)


def send_one(session: MxSession, to: str) -> Outcome:
    (outcome,) = send(session, to)
    return outcome


def delivery_to(*to: str) -> Delivery:
    targets = tuple(Target(index, parse_address(each)) for index, each in enumerate(to))
    return Delivery(77, "app@client.example", targets, CONTENT)


def received(server: SmtpServer) -> list[tuple[str, ...]]:
    return [message.recipients for message in server.messages()]


def sessions(server: SmtpServer) -> set[int]:
    return {message.session for message in server.messages()}


# Where to


def test_the_best_exchanger_gets_it(session_of: Any, servers: World) -> None:
    outcome = send_one(session_of(), "x@ann.example")
    assert isinstance(outcome, Relayed)
    assert outcome.reply.remote == f"one.example[127.0.0.2]:{servers.port}"
    (message,) = servers.one.messages()
    assert (message.recipients, message.content) == (("x@ann.example",), CONTENT)
    assert servers.one.commands()[0] == f"ehlo {ME}"
    assert servers.two.messages() == []


@pytest.mark.parametrize("to", ["x@implicit.example", "x@alias.example", "x@[127.0.0.2]", "x@backup.example"])
def test_other_ways_to_say_where(session_of: Any, servers: World, to: str) -> None:
    assert isinstance(send_one(session_of(), to), Relayed)
    assert received(servers.one) == [(to,)]


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.example", "5.1.10"),
        ("nowhere.example", "5.1.2"),
        ("bare.example", "5.1.2"),
        ("loop.example", "5.4.6"),
        ("hostless.example", "5.4.4"),
    ],
)
def test_domains_that_take_no_mail(session_of: Any, domain: str, status: str) -> None:
    outcomes = send(session_of(), f"x@{domain}", f"y@{domain}")
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert outcome.reply.status == status


def test_private_addresses_are_not_contacted(session_of: Any, servers: World) -> None:
    session = session_of(allow_private=False)
    for to in ("x@ann.example", "x@[127.0.0.2]", "x@[IPv6:::1]"):
        outcome = send_one(session, to)
        assert isinstance(outcome, Failed)
        assert outcome.reply.status == "5.4.4"
        assert "loopback" in outcome.reply.text
    assert servers.one.commands() == []


def test_an_answer_is_remembered(servers: World, names: DnsServer) -> None:
    transport = transport_of(servers, names)
    for _ in range(2):
        session = transport.open()
        assert isinstance(send_one(session, "x@ann.example"), Relayed)
        assert isinstance(send_one(session, "x@nowhere.example"), Failed)
        session.close()
    assert names.asked["ann.example", "MX"] == 1
    assert names.asked["one.example", "A"] == 1


# The DNS in trouble


def test_a_domain_whose_dns_fails_waits_alone(session_of: Any, names: DnsServer) -> None:
    names.failing.add("ann.example")
    outcome = send_one(session_of(), "x@ann.example")
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.status, outcome.destination_down) == ("4.4.3", True)


def test_a_domain_whose_dns_is_silent_waits_alone(session_of: Any, names: DnsServer) -> None:
    names.silent.add("one.example")
    names.zone["ann.example"] = {"MX": ["10 one.example."]}
    outcome = send_one(session_of(resolver=names.resolver(lifetime=0.3, timeout=0.2)), "x@ann.example")
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.status, outcome.destination_down) == ("4.4.3", True)


@pytest.mark.parametrize("how", ["silent", "failing"])
def test_a_resolver_that_is_of_no_use_is_nobody_s_fault(session_of: Any, names: DnsServer, how: str) -> None:
    if how == "silent":
        names.silent.add("*")
    else:
        names.failing |= {".", "ann.example"}
    with pytest.raises(TransportDown, match="DNS"):
        send(session_of(resolver=names.resolver(lifetime=0.3, timeout=0.2)), "x@ann.example")


def test_what_was_sent_is_not_lost_with_what_could_not_be_looked_up(
    session_of: Any, servers: World, names: DnsServer
) -> None:
    names.failing |= {".", "bob.example"}
    sent, waits = send(session_of(), "x@ann.example", "x@bob.example")
    assert isinstance(sent, Relayed)
    assert isinstance(waits, Deferred)
    assert not waits.destination_down
    assert received(servers.one) == [("x@ann.example",)]


# The next host


def test_hosts_that_are_dead_or_do_not_exist_give_way(session_of: Any, servers: World) -> None:
    assert isinstance(send_one(session_of(), "x@dora.example"), Relayed)
    assert received(servers.one) == [("x@dora.example",)]


def test_no_more_hosts_than_allowed_are_tried(session_of: Any, servers: World) -> None:
    outcome = send_one(session_of(max_mx=2), "x@dora.example")
    assert isinstance(outcome, Deferred)
    assert outcome.destination_down
    assert "connection refused" in outcome.reply.text.lower()
    assert servers.one.messages() == []


def test_no_further_host_is_tried_when_half_the_time_is_over(session_of: Any, servers: World) -> None:
    clock = iter(range(0, 10_000, 1000))
    outcome = send_one(session_of(monotonic=lambda: float(next(clock))), "x@dora.example")
    assert isinstance(outcome, Deferred)
    assert servers.one.messages() == []


@pytest.mark.parametrize(
    "script",
    [
        Script(replies={"CONNECT": "421 4.3.2 busy"}),
        Script(replies={"CONNECT": "554 no mail from you"}),
        Script(replies={"EHLO": "421 4.3.2 later"}),
        Script(replies={"MAIL": "421 4.3.2 later"}),
        Script(replies={"MAIL": "530 5.7.0 who are you"}),
        Script(drop_before="CONNECT"),
        Script(drop_before="EHLO"),
        Script(drop_before="MAIL", features=["8BITMIME"]),
    ],
    ids=lambda script: f"{script.replies or script.drop_before}",
)
def test_a_host_that_takes_no_mail_now_gives_way(session_of: Any, servers: World, script: Script) -> None:
    servers.one.script(script)
    assert isinstance(send_one(session_of(), "x@ann.example"), Relayed)
    assert received(servers.two) == [("x@ann.example",)]


def test_all_hosts_refuse_for_now(session_of: Any, servers: World) -> None:
    servers.one.script(Script(replies={"CONNECT": "554 5.7.1 no"}))
    servers.two.script(Script(replies={"CONNECT": "421 4.3.2 busy"}))
    outcome = send_one(session_of(), "x@ann.example")
    assert isinstance(outcome, Deferred)
    assert outcome.destination_down
    assert (outcome.reply.code, outcome.reply.remote) == (421, f"two.example[127.0.0.3]:{servers.port}")
    assert "554 5.7.1" in outcome.reply.text


def test_all_hosts_take_no_mail_ever(session_of: Any, servers: World) -> None:
    for server in (servers.one, servers.two):
        server.script(Script(replies={"CONNECT": "521 does not accept mail"}))
    outcome = send_one(session_of(), "x@ann.example")
    assert isinstance(outcome, Failed)
    assert (outcome.reply.code, outcome.reply.status) == (521, "5.3.2")
    servers.two.script(Script(replies={"CONNECT": "421 4.3.2 busy"}))
    assert isinstance(send_one(session_of(), "x@ann.example"), Deferred)


@pytest.mark.parametrize(("answer", "kind"), [("550 5.1.1 who?", Failed), ("450 4.2.0 full", Deferred)])
def test_what_is_said_of_a_recipient_is_the_last_word(
    session_of: Any, servers: World, answer: str, kind: type[Outcome]
) -> None:
    servers.one.script(Script(recipients={"x@ann.example": answer}))
    refused, fine = send(session_of(), "x@ann.example", "y@ann.example")
    assert isinstance(refused, kind)
    assert not (isinstance(refused, Deferred) and refused.destination_down)
    assert isinstance(fine, Relayed)
    assert servers.two.messages() == []


def test_a_dead_destination_is_down(session_of: Any) -> None:
    outcome = send_one(session_of(), "x@down.example")
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.status, outcome.destination_down) == ("4.4.1", True)


# One connection at a time


def test_a_connection_serves_one_domain_until_another_is_wanted(session_of: Any, servers: World) -> None:
    session = session_of()
    for to in ("a@ann.example", "b@ann.example", "c@bob.example", "d@ann.example"):
        assert session.noop()
        assert isinstance(send_one(session, to), Relayed)
    first, second, third = (message.session for message in servers.one.messages())
    assert first == second != third
    assert servers.one.commands().count("QUIT") == 1


def test_recipients_of_several_domains_are_taken_apart(session_of: Any, servers: World) -> None:
    outcomes = send(session_of(), "a@ann.example", "b@bob.example", "c@ann.example", "d@null.example")
    assert [type(outcome) for outcome in outcomes] == [Relayed, Relayed, Relayed, Failed]
    assert received(servers.one) == [("a@ann.example", "c@ann.example")]
    assert received(servers.two) == [("b@bob.example",)]


def test_a_kept_connection_that_was_closed_costs_nothing(session_of: Any, servers: World) -> None:
    servers.one.script(Script(session_messages=1))
    session = session_of()
    assert isinstance(send_one(session, "a@ann.example"), Relayed)
    assert isinstance(send_one(session, "b@ann.example"), Relayed)
    assert len(sessions(servers.one)) == 2
    assert servers.two.messages() == []


def test_a_server_that_lies_about_pipelining_is_asked_step_by_step(session_of: Any, servers: World) -> None:
    servers.one.script(Script(lie="drop", transcript=True))
    session = session_of()
    assert isinstance(send_one(session, "a@ann.example"), Relayed)
    assert isinstance(send_one(session, "b@bob.example"), Relayed)
    assert isinstance(send_one(session, "c@ann.example"), Relayed)
    assert received(servers.one) == [("a@ann.example",), ("c@ann.example",)]


def test_a_kept_connection_whose_server_says_no_is_not_used_again(session_of: Any, servers: World) -> None:
    servers.one.script(Script(replies={"NOOP": "421 4.3.2 enough"}))
    session = session_of()
    assert isinstance(send_one(session, "a@ann.example"), Relayed)
    assert session.noop()
    assert isinstance(send_one(session, "b@ann.example"), Relayed)
    assert len(sessions(servers.one)) == 2


def test_a_host_that_falls_silent_gives_way_and_is_not_pipelined_to_again(
    session_of: Any, servers: World
) -> None:
    servers.one.script(Script(silent="MAIL", sessions=1, transcript=True))
    session = session_of(timeouts=SmtpTimeouts(mail=0.2))
    assert isinstance(send_one(session, "a@ann.example"), Relayed)
    assert received(servers.two) == [("a@ann.example",)]
    assert session._unpipelined == {"127.0.0.2"}
    assert isinstance(send_one(session, "b@bob.example"), Relayed)
    assert isinstance(send_one(session, "c@ann.example"), Relayed)
    assert received(servers.one) == [("c@ann.example",)]


def test_nothing_is_sent_after_an_abort(session_of: Any, servers: World) -> None:
    session = session_of()
    session.abort()
    assert isinstance(send_one(session, "a@ann.example"), Deferred)
    assert servers.one.messages() == []


# TLS


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # it also takes pyOpenSSL's
    return context


def test_tls_is_used_where_it_is_offered_whatever_the_certificate(session_of: Any, servers: World) -> None:
    outcome = send_one(session_of(), "x@locked.example")
    assert isinstance(outcome, Relayed)
    assert outcome.reply.tls.startswith("TLSv1.")
    (message,) = servers.safe.messages()
    assert message.tls


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script(features=TLS, drop_after="STAR", replies={"STAR": "220 go on"}), "TLS failed"),
        (Script(features=TLS, replies={"STAR": "454 4.7.0 no key"}), "454 4.7.0"),
    ],
)
def test_without_tls_where_it_fails(session_of: Any, servers: World, script: Script, said: str) -> None:
    servers.one.script(script)
    outcome = send_one(session_of(), "x@ann.example")
    assert isinstance(outcome, Relayed)
    assert outcome.reply.tls.startswith("none (")
    assert said in outcome.reply.tls
    assert received(servers.one) == [("x@ann.example",)]


def test_required_tls_verifies_the_exchanger_s_name(session_of: Any, servers: World) -> None:
    session = session_of(tls="required", ssl_context=trusting(servers.authority))
    outcome = send_one(session, "x@locked.example")
    assert isinstance(outcome, Relayed)
    assert outcome.reply.tls.startswith("TLSv1.")
    for to, said in (("x@ann.example", "not offered"), ("x@[127.0.0.5]", "certificate not accepted")):
        refused = send_one(session, to)
        assert isinstance(refused, Deferred)
        assert refused.destination_down
        assert said in refused.reply.text
    assert servers.one.messages() == []


def test_a_certificate_of_somebody_else_is_not_believed(session_of: Any) -> None:
    outcome = send_one(session_of(tls="required", ssl_context=trusting(trustme.CA())), "x@locked.example")
    assert isinstance(outcome, Deferred)
    assert "4.7.5 TLS certificate not accepted" in str(outcome.reply)


def test_no_tls_when_told_so(session_of: Any, servers: World) -> None:
    servers.one.script(Script(features=TLS, transcript=True))
    outcome = send_one(session_of(tls="none"), "x@ann.example")
    assert isinstance(outcome, Relayed)
    assert outcome.reply.tls == ""
    assert "STARTTLS" not in servers.one.commands()


# Settings


def test_the_source_address_is_used(session_of: Any) -> None:
    assert isinstance(send_one(session_of(source_address="127.0.0.9"), "x@ann.example"), Relayed)
    with pytest.raises(TransportDown, match=r"source_address 203\.0\.113\.1"):
        send(session_of(source_address="203.0.113.1"), "x@ann.example")
    outcome = send_one(session_of(source_address="::1"), "x@ann.example")
    assert isinstance(outcome, Failed)
    assert "source address" in outcome.reply.text


def test_each_recipient_has_its_signed_return_path(session_of: Any, servers: World) -> None:
    tokens = Tokens(bytes(range(32)), "bounces+{token}@client.example")
    session = session_of(bounces=tokens)
    outcomes = send(session, "a@ann.example", "b@ann.example", "c@null.example")
    assert [type(outcome) for outcome in outcomes] == [Relayed, Relayed, Failed]
    messages = servers.one.messages()
    assert [tokens.read(message.sender) for message in messages] == [(77, 0), (77, 1)]
    assert len(sessions(servers.one)) == 1


def test_destinations_are_always_told_apart() -> None:
    plain = MxTransport(hostname=ME, throttle=Throttle(rate=Rate(5)))
    assert plain.throttle == Throttle(rate=Rate(5), destination=MX_DESTINATION)
    own = Throttle(destination=DestinationLimits(concurrency=1, initial=1))
    assert MxTransport(hostname=ME, throttle=own).throttle == own
    assert MxTransport(hostname=ME).throttle.by_destination


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"hostname": "box"}, "hostname"),
        ({"hostname": ""}, "hostname"),
        ({"hostname": "a b.example"}, "hostname"),
        ({"own_hosts": "mx.client.example"}, "own_hosts"),
        ({"own_hosts": ["a b"]}, "own_hosts"),
        ({"port": 0}, "port"),
        ({"tls": "perhaps"}, "tls"),
        ({"max_mx": 0}, "max_mx"),
        ({"source_address": "eth0"}, "source_address"),
    ],
)
def test_mistakes(options: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"hostname": ME, **options}
    with pytest.raises(ConfigurationError) as caught:
        MxTransport(**given)
    assert caught.value.field == field


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.transports.mx.find_spec", {"dns": None}.get)
    with pytest.raises(ConfigurationError, match=r"pip install postroom\[mx\]"):
        MxTransport(hostname=ME)


def test_the_system_s_resolver_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    transport = MxTransport(hostname=ME)
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", missing)
    with pytest.raises(ConfigurationError, match="the system names none"):
        transport.prepare()


# With a spooler


def test_one_dead_domain_stands_in_nobody_s_way(servers: World, names: DnsServer, tmp_path: Path) -> None:
    transport = transport_of(servers, names, limits=Limits(concurrency=2, recipients_per_delivery=50))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        to = ["a@down.example", "b@down.example", "a@ann.example", "b@ann.example", "x@null.example"]
        receipt = spooler.submit(CONTENT, sender="app@client.example", to=to, report=set())
        deadline = time.monotonic() + 20
        while True:
            status = spooler.status(receipt.id)
            states = {str(each.address): each.state.label for each in status.recipients}
            if len(servers.one.messages()) == 1 and states["smtp:x@null.example"] == "failed":
                break
            assert time.monotonic() < deadline, states
            time.sleep(0.01)
        assert received(servers.one) == [("a@ann.example", "b@ann.example")]
        assert {states["smtp:a@ann.example"], states["smtp:b@ann.example"]} <= {"relayed", "sending"}
        assert states["smtp:a@down.example"] in {"queued", "sending"}


# The suite


class MxHarness(TransportHarness):
    can_fail = True
    can_hang = True

    def __init__(self, server: SmtpServer) -> None:
        self.server = server

    @property
    def peer(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server.port)

    def make(self) -> Transport:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Transport:
        zone = {("box.example", "MX"): ["10 mx.box.example."], ("mx.box.example", "A"): [host]}
        return MxTransport(
            hostname=ME,
            resolver=lambda name, question: zone.get((name, question), ()),
            port=port,
            allow_private=True,
            timeouts=SmtpTimeouts(connect=5, greeting=20),
        )

    def address(self, number: int) -> Address:
        return parse_address(f"user{number}@box.example")

    def arrived(self) -> list[Arrival]:
        return [
            (f"smtp:{recipient}", message.content)
            for message in self.server.messages()
            for recipient in message.recipients
        ]

    def stop_peer(self) -> None:
        self.server.kill()

    def hang_peer(self) -> None:
        suspend(self.server.pid)


class TestMxTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
        with SmtpServer(tmp_path / "received.jsonl", script=Script(keep_content=True)) as server:
            yield MxHarness(server)
            server.kill()  # a suspended process heeds no SIGTERM
