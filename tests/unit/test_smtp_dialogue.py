"""The SMTP transaction over a wire in memory."""

import email
import email.policy
from collections.abc import Sequence
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed
from postroom.replies import ReplyRow, Verdict, smtp_table
from postroom.transports.smtp_commands import GROUP
from postroom.transports.smtp_dialogue import Dialogue, OutOfStep
from postroom.transports.smtp_envelope import Features, prepare, seven_bit, stuffed
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.smtp_wire import Lost

ALL = Features(pipelining=True, eight_bit=True, smtputf8=True, size=True)
PLAIN = Features()
CONTENT = b"Subject: x\r\n\r\nbody\r\n"
END = b".\r\n"
GONE = Lost("connection closed by the server")
SILENCE = Lost("no answer within 1 s", timed_out=True)


class MemoryWire:
    """Answers with what it was given, and keeps what was written. A write that is ``failing`` raises instead."""

    def __init__(self, *answers: str | Lost, failing: bytes | None = None) -> None:
        self.answers: list[bytes | Lost] = []
        for answer in answers:
            lines = [answer] if isinstance(answer, Lost) else [line.encode() for line in answer.split("\n")]
            self.answers.extend(lines)
        self.failing = failing
        self.written: list[bytes] = []
        self.patience = 0.0
        self.ahead = False

    def write(self, octets: bytes) -> None:
        if self.failing is not None and octets.startswith(self.failing):
            raise GONE
        self.written.append(octets)

    def readline(self) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Lost):
            raise answer
        return answer


def dialogue(
    wire: MemoryWire, features: Features = ALL, *, kept: bool = False, lmtp: bool = False
) -> Dialogue:
    made = Dialogue(
        wire, features, SmtpTimeouts(), remote="mx:25", lmtp=lmtp, success=Delivered if lmtp else Relayed
    )
    if kept:
        answers, wire.answers = wire.answers, [*MemoryWire("250 ok", "250 ok", "354 go", "250 ok").answers]
        assert kinds(made.send(delivery("first@example.org"))) == ["Relayed"]
        wire.answers = answers
        wire.written.clear()
    return made


def delivery(
    *recipients: str,
    sender: str = "app@example.org",
    content: bytes = CONTENT,
    smtputf8: bool = False,
    eight_bit: bool = False,
) -> Delivery:
    targets = tuple(Target(index, Address("smtp", value)) for index, value in enumerate(recipients))
    return Delivery(1, sender, targets, content, smtputf8=smtputf8, eight_bit=eight_bit)


def outcomes(result: Outcome | Sequence[Outcome]) -> list[Outcome]:
    return list(result) if isinstance(result, Sequence) else [result]


def kinds(result: Outcome | Sequence[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes(result)]


def test_a_pipelined_transaction_is_two_writes() -> None:
    wire = MemoryWire("250 ok", "250 ok", "250 ok", "354 go", "250-2.0.0 Ok:\n250 2.0.0 queued as X")
    result = outcomes(dialogue(wire).send(delivery("a@example.org", "b@example.org")))
    assert wire.written == [
        b"MAIL FROM:<app@example.org> SIZE=20\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
        CONTENT + END,
    ]
    assert kinds(result) == ["Relayed", "Relayed"]
    assert isinstance(result[0], Relayed)
    assert str(result[0].reply) == "mx:25: 250 2.0.0 Ok: queued as X"


def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    wire = MemoryWire("250 ok", "250 ok", "354 go", "250 ok")
    assert kinds(dialogue(wire, PLAIN).send(delivery("a@example.org"))) == ["Relayed"]
    assert wire.written == [
        b"MAIL FROM:<app@example.org>\r\n",
        b"RCPT TO:<a@example.org>\r\n",
        b"DATA\r\n",
        CONTENT + END,
    ]


@pytest.mark.parametrize("features", [ALL, PLAIN], ids=["pipelined", "stepwise"])
def test_a_refused_recipient_is_refused_alone(features: Features) -> None:
    wire = MemoryWire("250 ok", "550 5.1.1 who?", "250 ok", "451 4.2.0 later", "354 go", "250 ok")
    result = outcomes(dialogue(wire, features).send(delivery("a@x.org", "b@x.org", "c@x.org")))
    assert kinds(result) == ["Failed", "Relayed", "Deferred"]
    assert isinstance(result[0], Failed)
    assert (result[0].reply.code, result[0].reply.status, result[0].reply.text) == (550, "5.1.1", "who?")


def test_all_recipients_refused_but_data_accepted_sends_a_lone_dot() -> None:
    wire = MemoryWire(
        "250 ok", "550 no", "354 go", "554 no valid recipients", "250 ok", "250 ok", "354 go", "250 ok"
    )
    talk = dialogue(wire)
    assert kinds(talk.send(delivery("a@x.org"))) == ["Failed"]
    assert wire.written[1:] == [b".\r\n"]
    assert kinds(talk.send(delivery("b@x.org"))) == ["Relayed"]


def test_all_recipients_refused_is_reset_with_the_next_group() -> None:
    wire = MemoryWire("250 ok", "550 no", "503 no", "250 reset", "250 ok", "250 ok", "354 go", "250 ok")
    talk = dialogue(wire)
    assert kinds(talk.send(delivery("a@x.org"))) == ["Failed"]
    assert kinds(talk.send(delivery("b@x.org"))) == ["Relayed"]
    assert wire.written[1].startswith(b"RSET\r\nMAIL FROM:")


def test_stepwise_asks_for_no_data_when_nobody_was_accepted() -> None:
    wire = MemoryWire("250 ok", "550 no", "250 reset", "250 ok", "250 ok", "354 go", "250 ok")
    talk = dialogue(wire, PLAIN)
    assert kinds(talk.send(delivery("a@x.org"))) == ["Failed"]
    assert b"DATA\r\n" not in wire.written
    assert kinds(talk.send(delivery("b@x.org"))) == ["Relayed"]
    assert b"RSET\r\n" in wire.written


@pytest.mark.parametrize(("answer", "kind"), [("451 4.3.0 no", "Deferred"), ("552 5.3.4 big", "Failed")])
@pytest.mark.parametrize(
    ("features", "before", "after"),
    [
        (ALL, [], ["503 no", "503 no"]),
        (PLAIN, [], []),
        (ALL, ["250 ok", "250 ok"], ["250 reset"]),
        (PLAIN, ["250 ok", "250 ok"], []),
        (ALL, ["250 ok", "250 ok", "354 go"], []),
        (PLAIN, ["250 ok", "250 ok", "354 go"], []),
    ],
    ids=[
        "pipelined-MAIL",
        "stepwise-MAIL",
        "pipelined-DATA",
        "stepwise-DATA",
        "pipelined-end",
        "stepwise-end",
    ],
)
def test_a_refused_message(
    answer: str, kind: str, features: Features, before: list[str], after: list[str]
) -> None:
    wire = MemoryWire(*before, answer, *after)
    talk = dialogue(wire, features)
    assert kinds(talk.send(delivery("a@x.org"))) == [kind]
    assert talk.usable
    assert wire.answers == []


@pytest.mark.parametrize("features", [ALL, PLAIN], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("before", [[], ["250 ok"], ["250 ok", "250 ok"], ["250 ok", "250 ok", "354 go"]])
def test_421_is_the_server_and_charges_nobody(features: Features, before: list[str]) -> None:
    talk = dialogue(MemoryWire(*before, "421 4.3.2 closing", GONE), features)
    with pytest.raises(TransportDown, match="closing"):
        talk.send(delivery("a@x.org"))
    assert not talk.usable


def test_421_keeps_what_is_final_already() -> None:
    wire = MemoryWire("250 ok", "550 no", "421 4.3.2 closing")
    talk = dialogue(wire, PLAIN)
    assert kinds(talk.send(delivery("a@x.org", "b@x.org", "c@x.org"))) == ["Failed", "Deferred", "Deferred"]
    assert not talk.usable


@pytest.mark.parametrize(
    "answer", ["530 5.7.0 authenticate first", "538 5.7.11 encrypt", "454 4.7.0 TLS", "521 no"]
)
def test_a_mail_refused_for_what_we_are_is_an_outage(answer: str) -> None:
    talk = dialogue(MemoryWire(answer, "503 no", "503 no"))
    with pytest.raises(TransportDown):
        talk.send(delivery("a@x.org"))
    assert not talk.usable


@pytest.mark.parametrize("features", [ALL, PLAIN], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("event", [GONE, "421 4.4.2 idle"])
def test_a_kept_session_that_is_closed_is_stale(features: Features, event: str | Lost) -> None:
    talk = dialogue(MemoryWire(event), features, kept=True)
    with pytest.raises(SessionStale):
        talk.send(delivery("a@x.org"))
    assert not talk.usable


@pytest.mark.parametrize("features", [ALL, PLAIN], ids=["pipelined", "stepwise"])
def test_a_kept_session_that_cannot_be_written_to_is_stale(features: Features) -> None:
    wire = MemoryWire()
    talk = dialogue(wire, features, kept=True)
    wire.failing = b"MAIL"
    with pytest.raises(SessionStale):
        talk.send(delivery("a@x.org"))


def test_a_fresh_session_that_is_closed_at_mail_is_an_outage() -> None:
    with pytest.raises(TransportDown, match="MAIL FROM"):
        dialogue(MemoryWire(GONE), PLAIN).send(delivery("a@x.org"))


@pytest.mark.parametrize(("features", "silent"), [(ALL, True), (PLAIN, False)], ids=["pipelined", "stepwise"])
def test_silence_at_mail_is_an_outage(features: Features, silent: bool) -> None:
    talk = dialogue(MemoryWire(SILENCE), features)
    with pytest.raises(TransportDown):
        talk.send(delivery("a@x.org"))
    assert talk.silent is silent


@pytest.mark.parametrize("event", [GONE, SILENCE], ids=["gone", "silent"])
@pytest.mark.parametrize("before", [["250 ok"], ["250 ok", "250 ok"]], ids=["RCPT", "DATA"])
def test_a_loss_within_a_stepwise_envelope_defers_the_message(before: list[str], event: Lost) -> None:
    talk = dialogue(MemoryWire(*before, event), PLAIN)
    (outcome,) = outcomes(talk.send(delivery("a@x.org")))
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.2"
    assert "duplicate" not in outcome.reply.text
    assert not talk.usable


@pytest.mark.parametrize("features", [ALL, PLAIN], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("event", [GONE, SILENCE, "354 again?", "nonsense"])
def test_a_loss_after_the_final_dot_is_in_doubt(features: Features, event: str | Lost) -> None:
    talk = dialogue(MemoryWire("250 ok", "250 ok", "354 go", event), features)
    (outcome,) = outcomes(talk.send(delivery("a@x.org")))
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.2"
    assert "may be a duplicate" in outcome.reply.text
    assert not talk.usable


@pytest.mark.parametrize(
    ("last_words", "kind", "status"),
    [("552 5.3.4 too big", "Failed", "5.3.4"), ("250 ok", "Deferred", "4.4.2"), (GONE, "Deferred", "4.4.2")],
)
def test_a_server_that_hangs_up_on_the_content(last_words: str | Lost, kind: str, status: str) -> None:
    talk = dialogue(MemoryWire("250 ok", "250 ok", "354 go", last_words, failing=b"Subject"))
    (outcome,) = outcomes(talk.send(delivery("a@x.org")))
    assert type(outcome).__name__ == kind
    assert outcome.reply.status == status
    assert "duplicate" not in outcome.reply.text
    assert not talk.usable


@pytest.mark.parametrize(
    "answers",
    [
        ["250 ok", GONE],
        ["250 ok", SILENCE],
        ["250 ok", "250 ok", GONE],
        ["250 ok", "250 ok", SILENCE],
        ["250 ok", "503 MAIL first"],
        ["250 ok", "500 what?"],
        ["250 ok", "354 go"],
        ["354 go"],
        ["250 ok", "250 ok", "250 ok"],
        ["250 ok", "250 ok", "503 RCPT first"],
        ["250 ok", "250 ok", "550 the last RCPT's answer", "354 go"],
        ["250 ok", "250 ok", "garbage"],
        ["550 no", "503 no", "354 go"],
        [GONE],
    ],
)
def test_a_server_that_does_not_follow_a_group_is_out_of_step(answers: list[str | Lost]) -> None:
    wire = MemoryWire(*answers)
    talk = dialogue(wire)
    with pytest.raises(OutOfStep):
        talk.send(delivery("a@x.org"))
    assert not talk.usable
    assert not any(written.endswith(END) and written != b"DATA\r\n" for written in wire.written[1:])


def test_an_answer_too_many_is_not_taken_for_that_of_the_content() -> None:
    wire = MemoryWire("250 ok", "250 ok", "354 go", "250 surplus")
    wire.ahead = True
    with pytest.raises(OutOfStep):
        dialogue(wire).send(delivery("a@x.org"))


def test_recipients_beyond_the_servers_limit_follow_at_once() -> None:
    first = ["250 ok", "250 ok", "452 4.5.3 too many", "552 too many", "354 go", "250 first"]
    second = ["250 ok", "250 ok", "452 4.5.3 too many", "354 go", "250 second"]
    third = ["250 ok", "250 ok", "354 go", "250 third"]
    talk = dialogue(MemoryWire(*first, *second, *third))
    result = outcomes(talk.send(delivery("a@x.org", "b@x.org", "c@x.org")))
    assert [outcome.reply.text for outcome in result] == ["first", "second", "third"]
    assert kinds(result) == ["Relayed"] * 3


@pytest.mark.parametrize("event", [GONE, SILENCE, "421 closing"])
def test_a_loss_in_a_further_transaction_undoes_nothing(event: str | Lost) -> None:
    talk = dialogue(MemoryWire("250 ok", "250 ok", "452 too many", "354 go", "250 first", event))
    result = outcomes(talk.send(delivery("a@x.org", "b@x.org")))
    assert kinds(result) == ["Relayed", "Deferred"]
    assert not talk.usable


def test_nobody_accepted_is_not_tried_again() -> None:
    talk = dialogue(MemoryWire("250 ok", "452 4.5.3 too many", "503 no"))
    assert kinds(talk.send(delivery("a@x.org"))) == ["Deferred"]


def test_many_recipients_are_grouped() -> None:
    count = GROUP * 2 + 1
    wire = MemoryWire("250 ok", *["250 ok"] * count, "354 go", "250 done")
    result = outcomes(dialogue(wire).send(delivery(*[f"r{number}@x.org" for number in range(count)])))
    assert len(result) == count
    assert [written.count(b"RCPT") for written in wire.written] == [GROUP, GROUP, 1, 0]
    assert [written.count(b"DATA\r\n") for written in wire.written] == [0, 0, 1, 0]


def test_lmtp_answers_for_each_recipient() -> None:
    wire = MemoryWire(
        "250 ok", "250 ok", "550 no", "250 ok", "250 ok", "354 go", "250 in", "452 4.2.2 full", "550 x"
    )
    result = outcomes(dialogue(wire, lmtp=True).send(delivery("a@x", "b@x", "c@x", "d@x")))
    assert kinds(result) == ["Delivered", "Failed", "Deferred", "Failed"]


def test_lmtp_lost_between_the_answers_doubts_only_the_rest() -> None:
    talk = dialogue(MemoryWire("250 ok", "250 ok", "250 ok", "354 go", "250 in", GONE), lmtp=True)
    result = outcomes(talk.send(delivery("a@x", "b@x")))
    assert kinds(result) == ["Delivered", "Deferred"]
    assert isinstance(result[1], Deferred)
    assert "duplicate" in result[1].reply.text


def test_lmtp_421_between_the_answers_keeps_those_delivered() -> None:
    talk = dialogue(MemoryWire("250 ok", "250 ok", "250 ok", "354 go", "250 in", "421 closing"), lmtp=True)
    assert kinds(talk.send(delivery("a@x", "b@x"))) == ["Delivered", "Deferred"]


def test_lmtp_with_nobody_accepted_sends_no_dot() -> None:
    wire = MemoryWire("250 ok", "550 no", "354 go")
    talk = dialogue(wire, lmtp=True)
    assert kinds(talk.send(delivery("a@x"))) == ["Failed"]
    assert len(wire.written) == 1
    assert not talk.usable


@pytest.mark.parametrize(
    ("answer", "alive"), [("250 ok", True), ("421 idle", False), (GONE, False), (SILENCE, False)]
)
def test_noop(answer: str | Lost, alive: bool) -> None:
    talk = dialogue(MemoryWire(answer))
    assert talk.noop() is alive
    assert talk.usable is alive


def test_quit_is_not_said_into_a_broken_conversation() -> None:
    wire = MemoryWire("250 ok", "250 ok", "354 go", SILENCE)
    talk = dialogue(wire)
    talk.send(delivery("a@x.org"))
    written = len(wire.written)
    talk.quit()
    assert len(wire.written) == written


@pytest.mark.parametrize(
    "address",
    [
        "a@x.org>\r\nDATA",
        "a\n@x.org",
        "a\r@x.org",
        "<a@x.org>",
        "a@x.org> SIZE=1",
        "a b@x.org",
        '"a',
        "a@x\0.org",
        "",
    ],
)
def test_an_address_cannot_carry_a_command(address: str) -> None:
    wire = MemoryWire("250 ok", "250 ok", "354 go", "250 ok")
    result = outcomes(dialogue(wire).send(delivery(address, "b@x.org")))
    assert kinds(result) == ["Failed", "Relayed"]
    assert isinstance(result[0], Failed)
    assert result[0].reply.status == "5.1.3"
    assert wire.written[0].count(b"\r\n") == 3


def test_a_sender_cannot_carry_a_command() -> None:
    wire = MemoryWire()
    (outcome,) = outcomes(dialogue(wire).send(delivery("a@x.org", sender="a>\r\nRSET\r\n")))
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.1.7"
    assert wire.written == []


@pytest.mark.parametrize(
    "address", ['"john smith"@x.org', '"a\\"b"@x.org', "a@[IPv6:::1]", "postmaster", "a+b=c@x.org"]
)
def test_addresses_are_sent_as_they_are(address: str) -> None:
    assert prepare(delivery(address), ALL).recipients[0][1] == f"RCPT TO:<{address}>\r\n".encode()


def test_the_null_sender() -> None:
    assert prepare(delivery("a@x.org", sender=""), PLAIN).mail == b"MAIL FROM:<>\r\n"


def test_a_message_beyond_the_servers_limit_is_refused_here() -> None:
    envelope = prepare(delivery("a@x.org"), Features(size=True, size_limit=10))
    assert envelope.recipients == ()
    assert envelope.refused[0].reply.status == "5.3.4"


@pytest.mark.parametrize(
    ("offered", "features"),
    [
        ({}, Features()),
        ({"size": ""}, Features(size=True)),
        ({"size": "0"}, Features(size=True)),
        ({"size": "junk"}, Features(size=True)),
        ({"size": "100", "pipelining": ""}, Features(pipelining=True, size=True, size_limit=100)),
        ({"8bitmime": "", "smtputf8": ""}, Features(eight_bit=True, smtputf8=True)),
    ],
)
def test_features(offered: dict[str, str], features: Features) -> None:
    assert Features.from_ehlo(offered) == features


def test_smtputf8_where_it_is_offered() -> None:
    for sent in (
        delivery("grün@x.org"),
        delivery("a@x.org", smtputf8=True),
        delivery("a@x.org", sender="grün@x.org"),
    ):
        envelope = prepare(sent, ALL)
        assert b" SMTPUTF8" in envelope.mail
        assert not envelope.refused
    assert b"SMTPUTF8" not in prepare(delivery("a@x.org"), ALL).mail


def test_smtputf8_where_it_is_not_offered_fails_only_whom_it_must() -> None:
    only_one = prepare(delivery("grün@x.org", "a@x.org", smtputf8=True), PLAIN)
    assert [position for position, _ in only_one.recipients] == [1]
    assert only_one.refused[0].reply.status == "5.6.7"
    for sent in (
        delivery("a@x.org", sender="grün@x.org"),
        delivery("grün@x.org", "a@x.org", smtputf8=True, content="Subject: grün\r\n\r\n".encode()),
        delivery("a@x.org", smtputf8=True),
    ):
        envelope = prepare(sent, PLAIN)
        assert envelope.recipients == ()
        assert {failed.reply.status for failed in envelope.refused.values()} == {"5.6.7"}


EIGHT_BIT = (
    "Subject: x\r\nDKIM-Signature: a=b;\r\n\tc=d\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "Grüße\r\n.\r\nzweite Zeile \r\n--b\r\n"
    "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "ÿÿ data\r\n--b--\r\n"
).encode()


def test_8bitmime_where_it_is_offered() -> None:
    envelope = prepare(delivery("a@x.org", content=EIGHT_BIT, eight_bit=True), ALL)
    assert b" BODY=8BITMIME" in envelope.mail
    assert "Grüße".encode() in envelope.content


def test_8bit_bodies_are_converted_where_it_is_not() -> None:
    envelope = prepare(delivery("a@x.org", content=EIGHT_BIT, eight_bit=True), PLAIN)
    assert b"8BITMIME" not in envelope.mail
    assert envelope.content.isascii()
    converted = seven_bit(EIGHT_BIT)
    assert converted is not None
    assert stuffed(converted) == envelope.content
    assert b"DKIM-Signature: a=b;\r\n\tc=d\r\n" in converted
    before, after = (
        email.message_from_bytes(octets, policy=email.policy.default) for octets in (EIGHT_BIT, converted)
    )
    assert [part.get_content_type() for part in after.walk()] == [
        part.get_content_type() for part in before.walk()
    ]
    for old, new in zip(before.iter_parts(), after.iter_parts(), strict=True):
        assert isinstance(old, EmailMessage)
        assert isinstance(new, EmailMessage)
        assert old.get_payload(decode=True) == new.get_payload(decode=True)


@pytest.mark.parametrize(
    "content",
    [
        EIGHT_BIT.replace(b"multipart/mixed", b"multipart/signed"),
        EIGHT_BIT.replace(b"\r\n\r\n--b\r\n", "\r\n\r\nVorwort für alte Programme\r\n--b\r\n".encode(), 1),
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n\xff\xff\r\n",
    ],
    ids=["signed", "preamble", "contradictory"],
)
def test_what_cannot_be_converted_fails(content: bytes) -> None:
    envelope = prepare(delivery("a@x.org", content=content, eight_bit=True), PLAIN)
    assert envelope.recipients == ()
    assert envelope.refused[0].reply.status == "5.6.3"


@given(st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"a", b"MAIL"])).map(b"".join))
def test_content_cannot_end_itself(content: bytes) -> None:
    sent = stuffed(content)
    assert sent.endswith(b"\r\n.\r\n") or sent == b".\r\n" or (not content and sent == b"\r\n.\r\n")
    inside = b"\r\n" + sent[: -len(b".\r\n")]
    for end in (b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\n"):
        assert end not in inside


@given(
    st.lists(st.sampled_from([b".", b"..", b"a", b""])).map(
        lambda lines: b"".join(line + b"\r\n" for line in lines)
    )
)
def test_stuffing_is_undone_by_the_receiver(content: bytes) -> None:
    lines = stuffed(content).split(b"\r\n")
    end = lines.index(b".")
    received = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])
    assert received == (content or b"\r\n")
    assert lines[end + 1 :] == [b""]


SAID = st.one_of(
    st.tuples(
        st.integers(200, 599).map(str),
        st.sampled_from(["", "2.0.0", "4.7.1", "4.4.1", "5.1.1"]),
        st.sampled_from(["", "Greylisted, try again in 5 minutes", "no such tenant", "x"]),
    ).map(" ".join),
    st.sampled_from(["250 ok", "354 go", "nonsense", "25", "250-half"]),
    st.sampled_from([GONE, SILENCE]),
)
OWN = smtp_table(
    [
        ReplyRow(Verdict.FAILED, codes="4..", text="tenant"),
        ReplyRow(Verdict.DESTINATION_DOWN, given="4.4.1"),
        ReplyRow(Verdict.TRANSPORT_DOWN, codes="57."),
    ]
)


@given(st.lists(SAID, max_size=14), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans())
def test_whatever_the_server_says_everybody_has_an_outcome_or_nobody_is_charged(
    said: list[str | Lost], count: int, pipelining: bool, lmtp: bool, own: bool
) -> None:
    wire = MemoryWire(*said, *[GONE] * 20)
    talk = Dialogue(
        wire,
        ALL if pipelining else PLAIN,
        SmtpTimeouts(),
        table=OWN if own else smtp_table(),
        lmtp=lmtp,
        remote="mx:25",
        tls="TLSv1.3",
        success=Delivered if lmtp else Relayed,
    )
    try:
        result = outcomes(talk.send(delivery(*(f"r{number}@example.org" for number in range(count)))))
    except (TransportDown, OutOfStep):
        assert not talk.usable
        return
    assert len(result) == count
    content_sent = any(octets.endswith(CONTENT + END) for octets in wire.written)
    refusals = [
        text for text in said if isinstance(text, str) and (text[0] == "5" or (own and "tenant" in text))
    ]
    for outcome in result:
        assert isinstance(outcome, Relayed | Delivered | Deferred | Failed)
        assert (outcome.reply.remote, outcome.reply.tls) == ("mx:25", "TLSv1.3")
        assert outcome.reply.status[0] == (
            "4" if isinstance(outcome, Deferred) else "5" if isinstance(outcome, Failed) else "2"
        )
        if isinstance(outcome, Relayed | Delivered):
            assert content_sent
        if isinstance(outcome, Failed):
            assert refusals
