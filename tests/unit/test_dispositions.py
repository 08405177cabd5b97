"""When a sender is told that a message was read, and what the notification says (RFC 8098)."""

from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.envelopes import Submission
from postroom.errors import InvalidAddress
from postroom.inbound.digesting import digest_of
from postroom.inbound.dispositions import Refusal, disposition, disposition_asked
from postroom.inbound.values import InboundRecord
from postroom.messages import prepare
from postroom.reports.reading import read_reports

NOW = 1_800_000_000.0
ANN = "ann@sender.example"
BOB = "bob@here.example"

HEAD = (
    f"Return-Path: <{ANN}>",
    f"From: Ann <{ANN}>",
    f"To: Bob <{BOB}>",
    f"Disposition-Notification-To: Ann <{ANN}>",
    "Message-ID: <1@sender.example>",
    "Date: Fri, 15 Jan 2027 08:00:00 +0000",
    "Subject: the plan",
)


def asking(
    *more: str, head: tuple[str, ...] = HEAD, without: str = "", **fields: Any
) -> tuple[InboundRecord, bytes]:
    """Return a message whose sender asks, with further header lines and fields of its record."""
    lines = [line for line in head if not (without and line.startswith(without))]
    content = "\r\n".join((*lines, *more, "", "hello", "")).encode()
    record = InboundRecord(
        key=1 << 40, folder="Inbox", received=NOW - 60, receiver="test", digest=digest_of(content), sender=ANN,
        recipients=(BOB,), remote="", size=len(content),
    )  # fmt: skip
    return replace(record, **fields), content


def decide(message: tuple[InboundRecord, bytes], **options: Any) -> Submission | Refusal:
    defaults: dict[str, Any] = {"kind": "displayed", "host": "here.example", "now": NOW}
    return disposition(*message, **(defaults | options))


def refusal(message: tuple[InboundRecord, bytes], **options: Any) -> Refusal:
    decided = decide(message, **options)
    assert isinstance(decided, Refusal), decided
    return decided


def octets(message: tuple[InboundRecord, bytes], **options: Any) -> bytes:
    decided = decide(message, **options)
    assert isinstance(decided, Submission), decided
    assert isinstance(decided.message, bytes)
    return decided.message


def parts_of(content: bytes) -> tuple[EmailMessage, list[Message]]:
    parsed = message_from_bytes(content, policy=default)
    assert not parsed.defects
    return parsed, cast("list[Message]", parsed.get_payload())


def status_of(content: bytes) -> dict[str, str]:
    payload = cast("list[Message]", parts_of(content)[1][1].get_payload())
    return dict(payload[0].items())


def test_a_notification_says_what_the_rfc_wants() -> None:
    decided = decide(asking("Original-Recipient: rfc822;team@here.example"))
    assert isinstance(decided, Submission)
    assert decided.sender == ""
    assert decided.to == (Address("smtp", ANN),)
    assert decided.report == frozenset()
    assert isinstance(decided.message, bytes)
    message, (text, _, header) = parts_of(decided.message)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "disposition-notification"
    assert (message["From"], message["To"]) == (BOB, ANN)
    assert message["Subject"] == "Read: the plan"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@sender.example>"
    assert "Disposition-Notification-To" not in message
    assert text.get_content_type() == "text/plain"
    assert f'"the plan" of Fri, 15 Jan 2027 08:00:00 -0000 to\r\n<{BOB}> was displayed' in str(
        text.get_payload()
    )
    assert status_of(decided.message) == {
        "Reporting-UA": "here.example; Postroom",
        "Original-Recipient": "rfc822;team@here.example",
        "Final-Recipient": f"rfc822;{BOB}",
        "Original-Message-ID": "<1@sender.example>",
        "Disposition": "manual-action/MDN-sent-automatically; displayed",
    }
    assert header.get_content_type() == "text/rfc822-headers"
    assert "Subject: the plan" in str(header.get_payload())
    assert "hello" not in str(header.get_payload())
    # What it is must also be known to whoever gets it, so that nobody answers it.
    digest = digest_of(decided.message)
    assert (digest.message_class, digest.auto_submitted) == ("REPORT.IPM.Note.IPNRN", "auto-replied")


def test_our_own_reader_understands_it() -> None:
    for kind, action in (("displayed", "displayed"), ("deleted", "deleted")):
        (report,) = read_reports(octets(asking("Original-Recipient: rfc822;team@here.example"), kind=kind))
        assert (report.kind, report.message_id) == ("mdn", "<1@sender.example>")
        (said,) = report.recipients
        assert (said.action, said.address) == (action, BOB)
        assert said.original == "team@here.example"
    (report,) = read_reports(octets(asking(recipients=("bøb@here.example",))))
    assert report.recipients[0].address == "bøb@here.example"


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"consent": True}, "manual-action/MDN-sent-manually; displayed"),
        ({"kind": "deleted"}, "manual-action/MDN-sent-automatically; deleted"),
        ({"kind": "deleted", "automatic": True}, "automatic-action/MDN-sent-automatically; deleted"),
    ],
)
def test_modes(options: dict[str, Any], mode: str) -> None:
    content = octets(asking(), **options)
    assert status_of(content)["Disposition"] == mode


def test_deleted_unread_has_its_own_words() -> None:
    content = octets(asking(), kind="deleted")
    message, parts = parts_of(content)
    assert message["Subject"] == "Not read: the plan"
    assert "without having been displayed" in str(parts[0].get_payload()).replace("\r\n", " ")
    assert digest_of(content).message_class == "REPORT.IPM.Note.IPNNRN"


NEVER = [
    (asking(without="Disposition-Notification-To"), "nobody asked for it"),
    (asking(notified="sent"), "it was decided before"),
    (asking(notified="denied"), "it was decided before"),
    (asking(notified="none"), "nobody asked for it"),
    (asking("Auto-Submitted: auto-generated"), "it is an automatic message"),
    (asking("List-Id: <list.example>"), "it went to many"),
    (asking("Precedence: bulk"), "it went to many"),
    (asking("Content-Type: multipart/report; report-type=delivery-status; boundary=x"), "it is a report itself"),
    (
        asking("Content-Type: multipart/report; report-type=disposition-notification; boundary=x"),
        "it is a report itself",
    ),
    (asking("Content-Type: multipart/report; boundary=x"), "it is a report itself"),
    (asking("Disposition-Notification-Options: signed-receipt-protocol=required,pkcs7"),
     "it makes a condition that is not known here"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), NEVER)
def test_nobody_can_agree_to_these(message: tuple[InboundRecord, bytes], reason: str) -> None:
    refused = refusal(message, consent=True)
    assert (refused.reason, refused.consent) == (reason, False)


def test_what_was_read_was_not_deleted_unread() -> None:
    assert refusal(asking(seen=True), kind="deleted", consent=True).reason == "it was read before"
    assert isinstance(decide(asking(seen=True)), Submission)


def test_an_optional_condition_is_none() -> None:
    assert isinstance(decide(asking("Disposition-Notification-Options: x=optional,y")), Submission)


DOUBTS = [
    (asking(sender=""), "it came from nobody"),
    (asking(sender=None, without="Return-Path"), "it is not known where it came from"),
    (asking("Return-Path: <other@sender.example>", sender=None), "it is not known where it came from"),
    (asking(sender="bounces@sender.example"), "another address asks for it than the one it came from"),
    (asking(sender="Ann@sender.example"), "another address asks for it than the one it came from"),
    (asking(f"Disposition-Notification-To: {ANN}, eve@example.com", without="Disposition-Notification-To"),
     "several addresses ask for it"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), DOUBTS)
def test_the_user_must_agree(message: tuple[InboundRecord, bytes], reason: str) -> None:
    refused = refusal(message)
    assert (refused.reason, refused.consent) == (reason, True)
    assert isinstance(decide(message, consent=True), Submission)


def test_the_return_path_is_compared_as_the_rfc_says() -> None:
    # The domain in any case; from the field where the record does not know.
    assert isinstance(decide(asking(sender="ann@SENDER.example")), Submission)
    assert isinstance(decide(asking(sender=None)), Submission)
    named = asking(
        'Disposition-Notification-To: "Ann, herself" <"ann"@sender.example>',
        without="Disposition-Notification-To",
    )
    assert isinstance(decide(named), Submission)


def test_all_who_ask_get_it_when_the_user_agrees() -> None:
    message = asking(
        f"Disposition-Notification-To: {ANN}, eve@example.com", without="Disposition-Notification-To"
    )
    decided = decide(message, consent=True)
    assert isinstance(decided, Submission)
    assert decided.to == (Address("smtp", ANN), Address("smtp", "eve@example.com"))


def test_who_asks_must_be_reachable() -> None:
    many = ", ".join(f"a{number}@example.com" for number in range(11))
    assert refusal(
        asking(f"Disposition-Notification-To: {many}", without="Disposition-Notification-To"), consent=True
    ).reason.startswith("11 addresses")
    nobody = asking()
    nobody = replace(nobody[0], digest=replace(nobody[0].digest, mdn_to=("nobody@",))), nobody[1]
    assert refusal(nobody, consent=True).reason == "whoever asks gives no address of mail"


def final(message: tuple[InboundRecord, bytes], **options: Any) -> str:
    return status_of(octets(message, **options))["Final-Recipient"]


def test_whose_it_is() -> None:
    assert final(asking()) == f"rfc822;{BOB}"
    assert final(asking(recipients=()), recipient="me@here.example") == "rfc822;me@here.example"
    assert final(asking("Delivered-To: box@here.example", recipients=())) == "rfc822;box@here.example"
    # To alone does not tell: it may have been a blind copy.
    unknown = asking(recipients=())
    assert refusal(unknown, consent=True).reason == "it is not known to which address here it came"
    assert final(unknown, identities=["BOB@here.example", "x@here.example"]) == "rfc822;BOB@here.example"
    several = asking(recipients=(BOB, "joe@here.example"))
    assert "which address" in refusal(several).reason
    assert final(several, identities=["joe@here.example"]) == "rfc822;joe@here.example"
    with pytest.raises(InvalidAddress, match="recipient"):
        decide(asking(), recipient="nobody")
    with pytest.raises(InvalidAddress, match="no mailbox"):
        decide(asking(), recipient="sms:+15550100")


def test_asked() -> None:
    assert disposition_asked(asking()[0]) == ""
    assert disposition_asked(asking(notified="sent")[0]) == "it was decided before"


def test_international_addresses() -> None:
    eve = "Ève@exämple.org"
    content = octets(
        asking(f"Disposition-Notification-To: {eve}", without="Disposition-Notification-To"), consent=True
    )
    _, (_, status, _) = parts_of(content)
    assert status.get_content_type() == "message/global-disposition-notification"
    assert "Ève@xn--exmple-cua.org" in content.decode()
    local = octets(asking(recipients=("bøb@here.example",)))
    assert "Final-Recipient: utf-8;bøb@here.example" in local.decode()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("X: grüße", "message/global-headers"),
        ("X: " + "y" * 1200, "text/rfc822-headers"),
        ("X: a\0b", "text/rfc822-headers"),
        ("X: plain", "text/rfc822-headers"),
    ],
)
def test_any_header_can_be_returned(line: str, kind: str) -> None:
    content = octets(asking(line))
    _, (_, _, header) = parts_of(content)
    assert header.get_content_type() == kind
    payload = header.get_payload(decode=True) if kind.startswith("text") else None
    if isinstance(payload, bytes):
        assert line.encode() in payload
    check(content)


def check(content: bytes) -> None:
    """A notification must be taken by our own spool."""
    prepared = prepare(content, now=NOW, message_id_domain="here.example", unique="x", max_size=1 << 20)
    assert prepared.content == content


_TEXT = st.text(max_size=300)


@given(subject=_TEXT, message_id=_TEXT, original=_TEXT, body=st.binary(max_size=300))
def test_nothing_in_a_message_breaks_the_notification(
    subject: str, message_id: str, original: str, body: bytes
) -> None:
    record, content = asking()
    digest = replace(record.digest, subject=subject, message_id=message_id)
    hostile = f"Original-Recipient: {original}\r\n".encode("utf-8", "replace") + body + content
    decided = octets((replace(record, digest=digest), hostile))
    check(decided)
    _, parts = parts_of(decided)
    assert len(parts) == 3
    assert status_of(decided)["Disposition"] == "manual-action/MDN-sent-automatically; displayed"


def test_the_boundary_is_not_in_the_message() -> None:
    record, content = asking()
    first = octets((record, content))
    boundary = str(parts_of(first)[0].get_boundary())
    content = content.replace(b"Subject:", f"X: y\r\n --{boundary}--\r\nSubject:".encode())
    _, parts = parts_of(octets((record, content)))
    assert len(parts) == 3


def test_long_headers_are_returned_in_part() -> None:
    content = octets(asking(*(f"X-{number}: {'y' * 60}" for number in range(2000))))
    _, (_, _, header) = parts_of(content)
    assert 30_000 < len(str(header.get_payload())) < 33_000
