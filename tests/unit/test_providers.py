"""Providers' webhooks: what they say, and what is not believed."""

import base64
import json
import logging
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.errors import ConfigurationError
from postroom.ids import format_id
from postroom.inbound.values import Arrival, LedgerKey, RemoteReport, ReportedRecipient
from postroom.receivers.providers import (
    MailgunInbound,
    MailgunReports,
    Malformed,
    PostedMessages,
    PostmarkReports,
    Provider,
    SendGridReports,
    SesInbound,
    SesReports,
    StandardReports,
    TwilioReports,
    Unauthorized,
    Unavailable,
    https_get,
)
from tests.support.webhooks import (
    CERT_URL,
    MAILGUN_KEY,
    NOW,
    STANDARD_KEY,
    TOPIC,
    TWILIO_TOKEN,
    TWILIO_URL,
    basic,
    clock,
    mailgun,
    mailgun_signature,
    sendgrid,
    sendgrid_public_key,
    sns,
    sns_certificate,
    standard,
    twilio,
)

JSON = {"content-type": "application/json"}


def certificate(url: str) -> bytes:
    assert url == CERT_URL
    return sns_certificate()


def no_certificate(url: str) -> bytes:
    return f"<p>{url}</p>".encode()


def ses(**more: Any) -> SesReports:
    given: dict[str, Any] = {"fetch": certificate, "time": clock}
    return SesReports({TOPIC}, **(given | more))


def only(said: Any) -> tuple[RemoteReport, ReportedRecipient]:
    (report,) = said
    (recipient,) = report.recipients
    return report, recipient


# Amazon SES


def ses_event(kind: str, field: str, said: dict[str, Any], *, published: bool = False) -> dict[str, Any]:
    return {
        "eventType" if published else "notificationType": kind,
        "mail": {
            "messageId": "0102-ses",
            "destination": ["ann@example.net"],
            "headers": [
                {"name": "Subject", "value": "x"},
                {"name": "Message-ID", "value": "<m1@example.org>"},
            ],
        },
        field: said,
    }


BOUNCE = {
    "bounceType": "Permanent",
    "bounceSubType": "General",
    "bouncedRecipients": [
        {
            "emailAddress": "ann@example.net",
            "action": "failed",
            "status": "5.1.1",
            "diagnosticCode": "smtp; 550 5.1.1 unknown",
        }
    ],
    "reportingMTA": "dns; a1.smtp-out.example.com",
    "timestamp": "2023-11-14T22:13:10.000Z",
}


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_bounce_of_ses(version: str) -> None:
    report, said = only(
        ses().read(JSON, sns(ses_event("Bounce", "bounce", BOUNCE), version=version, Subject="B"))
    )
    assert said == ReportedRecipient(
        action="failed",
        address="ann@example.net",
        status="5.1.1",
        text="550 5.1.1 unknown",
        remote_id="0102-ses",
    )
    assert report == RemoteReport(
        kind="provider", recipients=(said,), message_id="<m1@example.org>", reporter="a1.smtp-out.example.com",
        at=NOW - 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field", "said", "action"),
    [
        ("Bounce", "bounce", BOUNCE | {"bounceType": "Transient"}, "failed"),
        ("Bounce", "bounce", {"bounceType": "Transient", "bouncedRecipients": [{"emailAddress": "ann@example.net"}]},
         "delayed"),
        ("Complaint", "complaint", {"complainedRecipients": [{"emailAddress": "ann@example.net"}]}, "complaint"),
        ("Delivery", "delivery", {"recipients": ["ann@example.net"], "smtpResponse": "250 ok"}, "delivered"),
        ("DeliveryDelay", "deliveryDelay", {"delayedRecipients": [{"emailAddress": "ann@example.net"}]}, "delayed"),
        ("Reject", "reject", {"reason": "Bad content"}, "failed"),
        ("Rendering Failure", "failure", {"errorMessage": "no such field"}, "failed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("published", [False, True])
def test_the_events_of_ses(kind: str, field: str, said: dict[str, Any], action: str, published: bool) -> None:
    _, recipient = only(ses().read(JSON, sns(ses_event(kind, field, said, published=published))))
    assert (recipient.action, recipient.address, recipient.remote_id) == (
        action,
        "ann@example.net",
        "0102-ses",
    )


@pytest.mark.parametrize(
    "message",
    [
        "Successfully validated SNS topic",
        {"notificationType": "Open"},
        {"notificationType": "AmazonSnsSubscriptionSucceeded"},
        ses_event(
            "Complaint", "complaint", {"complaintFeedbackType": "not-spam", "complainedRecipients": [{}]}
        ),
        ses_event("Delivery", "delivery", {"recipients": "all"}),
        [],
    ],
)
def test_what_ses_says_that_is_of_no_interest(message: Any) -> None:
    assert ses().read(JSON, sns(message)) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"Message": "[]"},
        {"Subject": "added"},
        {"Timestamp": "2023-11-14T22:13:21.000Z"},
        {"Signature": "AAAA"},
        {"Signature": "*"},
        {"Signature": 7},
        {"SignatureVersion": "1"},
        {"SignatureVersion": "3"},
        {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:theirs"},
        {"TopicArn": 5},
        {"TopicArn": [TOPIC]},
        {"SignatureVersion": {}},
        {"Timestamp": "yesterday"},
        {"Timestamp": None},
        {"SigningCertURL": "https://attacker.s3.amazonaws.com/cert.pem"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.example.org/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com@example.org/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com:8443/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com:x/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/cert.txt"},
        {"SigningCertURL": None},
    ],
)
def test_what_is_not_signed_by_sns_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        ses().read(JSON, sns("{}", changed=changed))


@pytest.mark.parametrize("stamp", ["2023-11-14T21:13:19Z", "2023-11-14T22:18:21Z"])
def test_what_is_too_old_or_from_the_future_is_refused(stamp: str) -> None:
    with pytest.raises(Unauthorized, match="from now"):
        ses().read(JSON, sns("{}", Timestamp=stamp))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"Type": 5}', b"[" * 100_000, b'{"Type": []}'])
def test_what_is_no_notification_cannot_be_read(body: bytes) -> None:
    with pytest.raises(Malformed):
        ses().read(JSON, body)


def test_an_expired_certificate_is_refused() -> None:
    much_later = NOW + 200 * 86400
    with pytest.raises(Unauthorized, match="not valid"):
        ses(time=lambda: much_later, tolerance=1e9).read(JSON, sns("{}"))


def test_the_certificate_is_fetched_once_and_its_absence_is_no_verdict() -> None:
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        if len(fetched) == 1:
            raise ConnectionError("down")
        return sns_certificate()

    provider = ses(fetch=fetch)
    with pytest.raises(Unavailable):
        provider.read(JSON, sns("{}"))
    for _ in range(2):
        assert provider.read(JSON, sns("{}")) == ()
    assert len(fetched) == 2
    with pytest.raises(Unauthorized, match="none"):
        ses(fetch=no_certificate).read(JSON, sns("{}"))


SUBSCRIBE = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"


def test_a_subscription_is_confirmed_if_told_to(caplog: pytest.LogCaptureFixture) -> None:
    asked = sns("You have chosen", Type="SubscriptionConfirmation", SubscribeURL=SUBSCRIBE, Token="t")
    confirmed: list[str] = []
    assert ses(confirm=confirmed.append).read(JSON, asked) == ()
    assert confirmed == [SUBSCRIBE]
    with caplog.at_level(logging.WARNING, "postroom.receivers"):
        assert ses().read(JSON, asked) == ()
    assert TOPIC in caplog.text
    elsewhere = sns("x", Type="SubscriptionConfirmation", SubscribeURL="https://example.org/", Token="t")
    with pytest.raises(Unauthorized):
        ses(confirm=confirmed.append).read(JSON, elsewhere)

    def down(_url: str) -> None:
        raise ConnectionError("down")

    with pytest.raises(Unavailable):
        ses(confirm=down).read(JSON, asked)
    ended = sns("bye", Type="UnsubscribeConfirmation", SubscribeURL=SUBSCRIBE, Token="t")
    assert ses(confirm=confirmed.append).read(JSON, ended) == ()
    assert confirmed == [SUBSCRIBE]


@pytest.mark.parametrize("topics", [(), {"mail"}, TOPIC])
def test_topics_have_to_be_named(topics: Any) -> None:
    with pytest.raises(ConfigurationError):
        SesReports(topics)


@pytest.mark.parametrize("encoding", ["UTF8", "BASE64"])
def test_mail_that_ses_received(encoding: str) -> None:
    content = "Subject: ü\r\n\r\nHi\r\n".encode()
    shown = base64.b64encode(content).decode() if encoding == "BASE64" else content.decode()
    event = {
        "notificationType": "Received",
        "mail": {"source": "<>", "timestamp": "2023-11-14T22:13:00Z"},
        "receipt": {"recipients": ["desk@example.org"], "action": {"type": "SNS", "encoding": encoding}},
        "content": shown,
    }
    provider = SesInbound({TOPIC}, fetch=certificate, time=clock)
    (arrival,) = provider.read(JSON, sns(event))
    key = LedgerKey("sns", "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", NOW + 7 * 86400)
    assert arrival == Arrival(
        content=content, keys=(key,), sender="", recipients=("desk@example.org",), received=NOW - 20,
        remote="Amazon SES",
    )  # fmt: skip
    with pytest.raises(Malformed):
        provider.read(JSON, sns(event | {"content": None}))
    assert provider.read(JSON, sns({"notificationType": "Bounce"})) == ()
    assert provider.read(JSON, sns("hello")) == ()


# SendGrid


def sendgrid_reports(**more: Any) -> SendGridReports:
    return SendGridReports(sendgrid_public_key(), time=clock, **more)


EVENT = {
    "email": "ann@example.net",
    "timestamp": 1699999990,
    "smtp-id": "<m1@example.org>",
    "event": "bounce",
    "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001",
    "reason": "550 5.1.1 no such user",
    "status": "5.1.1",
}


def test_the_events_of_sendgrid() -> None:
    kinds = ["processed", "delivered", "deferred", "dropped", "bounce", "open", "spamreport"]
    reports = sendgrid_reports().read(*sendgrid([EVENT | {"event": kind} for kind in kinds] + [7]))
    actions = [report.recipients[0].action for report in reports]
    assert actions == ["delivered", "delayed", "failed", "failed", "complaint"]
    assert reports[3] == RemoteReport(
        kind="provider", message_id="<m1@example.org>", reporter="SendGrid", at=1699999990.0,
        recipients=(
            ReportedRecipient(
                action="failed", address="ann@example.net", status="5.1.1", text="550 5.1.1 no such user",
                remote_id="14c5d75ce93",
            ),
        ),
    )  # fmt: skip


def test_what_sendgrid_did_not_sign_is_refused() -> None:
    headers, body = sendgrid([EVENT])
    stamp = "x-twilio-email-event-webhook-timestamp"
    signature = "x-twilio-email-event-webhook-signature"
    for bad_headers, bad_body in [
        (headers, body + b" "),
        (headers | {stamp: "1700000001"}, body),
        (headers | {signature: "AAAA"}, body),
        (headers | {signature: "ü"}, body),
        ({}, body),
        sendgrid([EVENT], stamp="1699913599"),
        sendgrid([EVENT], stamp="soon"),
        sendgrid([EVENT], stamp="nan"),
    ]:
        with pytest.raises(Unauthorized):
            sendgrid_reports().read(bad_headers, bad_body)
    for events in [EVENT, "x"]:
        with pytest.raises(Malformed):
            sendgrid_reports().read(*sendgrid(events))
    with pytest.raises(Malformed):
        sendgrid_reports().read(*sendgrid([{}] * 5001))


def test_the_key_of_sendgrid_may_be_pem() -> None:
    text = sendgrid_public_key()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text[:64]}\n{text[64:]}\n-----END PUBLIC KEY-----\n"
    assert len(SendGridReports(pem, time=clock).read(*sendgrid([EVENT]))) == 1
    for bad in ["", "AAAA", "*"]:
        with pytest.raises(ConfigurationError):
            SendGridReports(bad)


# Mailgun

MAILGUN_EVENT: dict[str, Any] = {
    "event": "failed",
    "severity": "permanent",
    "recipient": "ann@example.net",
    "timestamp": 1699999990.5,
    "message": {"headers": {"message-id": "m1@example.org"}},
    "delivery-status": {"code": 550, "message": "5.1.1 no such user"},
}


@pytest.mark.parametrize(
    ("changed", "action"),
    [
        ({}, "failed"),
        ({"severity": "temporary"}, "delayed"),
        ({"event": "delivered"}, "delivered"),
        ({"event": "complained"}, "complaint"),
        ({"event": "rejected"}, "failed"),
    ],
)
def test_the_events_of_mailgun(changed: dict[str, Any], action: str) -> None:
    report, said = only(MailgunReports(MAILGUN_KEY, time=clock).read(JSON, mailgun(MAILGUN_EVENT | changed)))
    assert said == ReportedRecipient(
        action=cast("Any", action), address="ann@example.net", status="5.1.1", text="550 5.1.1 no such user"
    )
    assert (report.message_id, report.at, report.reporter) == ("<m1@example.org>", 1699999990.5, "Mailgun")


def test_what_mailgun_did_not_sign_is_refused() -> None:
    provider = MailgunReports(MAILGUN_KEY, time=clock)
    assert provider.read(JSON, mailgun({"event": "opened"})) == ()
    wrong = mailgun(MAILGUN_EVENT).replace(b'"timestamp": "1700000000"', b'"timestamp": "1700000001"')
    for body in [wrong, b"{}", mailgun(MAILGUN_EVENT, stamp="1699971199"), mailgun(MAILGUN_EVENT, token="")]:
        with pytest.raises(Unauthorized):
            provider.read(JSON, body)
    with pytest.raises(Unauthorized):
        MailgunReports("another-key", time=clock).read(JSON, mailgun(MAILGUN_EVENT))
    with pytest.raises(ConfigurationError):
        MailgunReports(" ")


MIME = b"Subject: \xff raw\r\n\r\n--x\r\nbody\r\n.\r\n\r\n"


def mailgun_form(
    multipart: bool, changed: dict[str, str] | None = None, content: bytes = MIME
) -> tuple[dict[str, str], bytes]:
    fields = (
        mailgun_signature() | {"recipient": "desk@example.org", "sender": "ann@example.net"} | (changed or {})
    )
    if not multipart:
        quoted = "&".join(f"{name}={value.replace('@', '%40')}" for name, value in fields.items())
        octets = "".join(f"%{octet:02X}" for octet in content)
        return {"content-type": "application/x-www-form-urlencoded"}, f"{quoted}&body-mime={octets}".encode()
    body = b"".join(
        f'--bo und\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += b'--bo und\r\nContent-Disposition: form-data; name="body-mime"; filename="m"\r\n\r\n' + content
    return {"content-type": 'multipart/form-data; boundary="bo und"'}, body + b"\r\n--bo und--\r\n"


@pytest.mark.parametrize("multipart", [True, False])
def test_a_message_of_a_mailgun_route_octet_for_octet(multipart: bool) -> None:
    provider = MailgunInbound(MAILGUN_KEY, time=clock)
    (arrival,) = provider.read(*mailgun_form(multipart))
    assert (arrival.content, arrival.sender, arrival.recipients) == (
        MIME,
        "ann@example.net",
        ("desk@example.org",),
    )
    (key,) = arrival.keys
    assert key.source == "mailgun"
    (again,) = provider.read(*mailgun_form(multipart, mailgun_signature(token="u" * 50)))
    (other,) = provider.read(*mailgun_form(multipart, {"recipient": "sales@example.org"}))
    assert again.keys == arrival.keys != other.keys
    (null,) = provider.read(*mailgun_form(multipart, {"sender": ""}))
    assert null.sender == ""
    with pytest.raises(Malformed):
        provider.read(*mailgun_form(multipart, content=b""))
    with pytest.raises(Unauthorized):
        provider.read(*mailgun_form(multipart, {"token": "x"}))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"nothing"),
        ("multipart/form-data; boundary=b\r\nX: y", b"--c"),
        ("application/x-www-form-urlencoded", b"a=1&" * 1000),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n" * 600),
    ],
)
def test_what_is_no_form_cannot_be_read(kind: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        MailgunInbound(MAILGUN_KEY, time=clock).read({"content-type": kind}, body)


# Postmark


@pytest.mark.parametrize(
    ("event", "action"),
    [
        ({"RecordType": "Delivery", "Recipient": "ann@example.net", "DeliveredAt": "2023-11-14T22:13:00Z"},
         "delivered"),
        ({"RecordType": "Bounce", "Type": "HardBounce", "Email": "ann@example.net",
          "BouncedAt": "2023-11-14T22:13:00Z", "Details": "smtp;550 5.1.1"}, "failed"),
        ({"RecordType": "Bounce", "Type": "Transient", "Email": "ann@example.net",
          "BouncedAt": "2023-11-14T22:13:00"}, "delayed"),
        ({"RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": "ann@example.net",
          "BouncedAt": "2023-11-14T23:13:00+01:00"}, "complaint"),
    ],
)  # fmt: skip
def test_the_events_of_postmark(event: dict[str, Any], action: str) -> None:
    provider = PostmarkReports("postroom", "a password of 16+")
    body = json.dumps(event | {"MessageID": "883953f4"}).encode()
    report, said = only(provider.read(basic("postroom", "a password of 16+"), body))
    assert (said.action, said.address, said.remote_id) == (action, "ann@example.net", "883953f4")
    assert report.at == NOW - 20
    assert provider.read(basic("postroom", "a password of 16+"), json.dumps(event).encode()) == ()


def test_postmark_has_to_give_the_password() -> None:
    provider = PostmarkReports("postroom", "a password of 16+")
    for headers in [
        JSON,
        basic("postroom", "another password"),
        basic("other", "a password of 16+"),
        {"authorization": "Basic ***"},
        {"authorization": "Bearer cG9zdHJvb206YSBwYXNzd29yZCBvZiAxNis="},
        {"authorization": "Basic ü"},
    ]:
        with pytest.raises(Unauthorized):
            provider.read(headers, b"{}")
    right = basic("postroom", "a password of 16+")
    for kind in ["Open", "SubscriptionChange"]:
        assert provider.read(right, json.dumps({"RecordType": kind, "MessageID": "x"}).encode()) == ()
    answer = {"RecordType": "Bounce", "Type": "AutoResponder", "MessageID": "x"}
    assert provider.read(right, json.dumps(answer).encode()) == ()
    with pytest.raises(Malformed):
        provider.read(right, b"[]")
    with pytest.raises(ConfigurationError):
        PostmarkReports("postroom", "short")


# Twilio


@pytest.mark.parametrize(
    ("status", "action"),
    [("delivered", "delivered"), ("undelivered", "failed"), ("failed", "failed"), ("read", "displayed")],
)
def test_the_callbacks_of_twilio(status: str, action: str) -> None:
    fields = {
        "MessageSid": "SM1",
        "MessageStatus": status,
        "To": "+15550100",
        "ErrorCode": "30003",
        "B": "ü &=",
    }
    _, said = only(TwilioReports(TWILIO_TOKEN, TWILIO_URL).read(*twilio(fields)))
    assert said == ReportedRecipient(
        action=cast("Any", action), address="sms:+15550100", text="error 30003", remote_id="SM1"
    )


def test_a_signature_that_twilio_documents_itself() -> None:
    """The example in Twilio's guide to the security of its requests."""
    headers = {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}
    body = (
        b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
    )
    provider = TwilioReports("12345", "https://mycompany.com/myapp.php?foo=1&bar=2")
    with pytest.raises(Malformed, match="MessageSid"):  # which is looked for behind the signature
        provider.read(headers, body)


def test_what_twilio_did_not_sign_is_refused() -> None:
    provider = TwilioReports(TWILIO_TOKEN, TWILIO_URL)
    headers, body = twilio({"MessageSid": "SM1", "MessageStatus": "delivered"})
    assert len(provider.read(headers, body)) == 1
    for bad_headers, bad_body in [
        (headers, body + b"&To=x"),
        ({}, body),
        twilio({"MessageSid": "SM1"}, url="https://app.example.org/hooks/twilio"),
    ]:
        with pytest.raises(Unauthorized):
            provider.read(bad_headers, bad_body)
    for status in ["queued", "sent", ""]:
        assert provider.read(*twilio({"MessageSid": "SM1", "MessageStatus": status})) == ()
    for token, url in [("", TWILIO_URL), (TWILIO_TOKEN, "app.example.org")]:
        with pytest.raises(ConfigurationError):
            TwilioReports(token, url)


# One's own


def test_reports_of_ones_own() -> None:
    provider = StandardReports([b"o" * 32, STANDARD_KEY], time=clock)
    mine = {
        "message_id": format_id(4711),
        "recipient": "sms:+15550100",
        "action": "failed",
        "text": "5.1.1 gone",
    }
    more = {"remote_id": "r1", "action": "delivered", "reporter": "gw", "at": 1699999990}
    others = {"message_id": "m1@example.org", "action": "displayed", "status": "2.0.0"}
    first, second, third = provider.read(*standard({"reports": [mine, more, others]}))
    assert first == RemoteReport(
        kind="provider", key=4711, reporter="webhook",
        recipients=(
            ReportedRecipient(action="failed", address="sms:+15550100", status="5.1.1", text="5.1.1 gone"),
        ),
    )  # fmt: skip
    assert (second.recipients[0].remote_id, second.reporter, second.at) == ("r1", "gw", 1699999990.0)
    assert (third.message_id, third.key, third.recipients[0].status) == ("<m1@example.org>", None, "2.0.0")
    assert provider.read(*standard(mine)) == (first,)


def test_what_is_not_signed_by_the_standard_is_refused() -> None:
    provider = StandardReports(STANDARD_KEY, time=clock)
    headers, body = standard({"message_id": "m1@example.org", "action": "failed"})
    for bad_headers, bad_body in [
        (headers, body + b" "),
        (headers | {"webhook-id": "msg_2"}, body),
        (headers | {"webhook-timestamp": "1700000001"}, body),
        (headers | {"webhook-timestamp": "x"}, body),
        (headers | {"webhook-id": "ü"}, body),
        (headers | {"webhook-signature": "v1,AAAA v1a,x"}, body),
        ({}, body),
        standard(body, at=NOW - 301),
        standard(body, at=NOW + 301),
    ]:
        with pytest.raises(Unauthorized):
            provider.read(bad_headers, bad_body)
    assert provider.read(headers | {"webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}, body)
    senseless: list[dict[str, Any]] = [
        {}, {"action": "failed"}, {"action": "x", "message_id": "<a@b>"}, {"reports": [{}]},
    ]  # fmt: skip
    for said in senseless:
        with pytest.raises(Malformed):
            provider.read(*standard(said))
    with pytest.raises(Malformed):
        provider.read(*standard(b"[1]"))


def test_posted_messages() -> None:
    provider = PostedMessages(STANDARD_KEY, bearer="0123456789abcdef", time=clock)
    message = b"Subject: hi\r\n\r\nHi\r\n"
    (signed,) = provider.read(*standard(message, kind="message/rfc822"))
    assert signed.content == message
    assert signed.keys == (LedgerKey("posted", "msg_1", NOW + 7 * 86400),)
    assert signed.sender is None
    (tokened,) = provider.read({"authorization": "Bearer 0123456789abcdef"}, message)
    assert tokened.content == message
    for headers in [{}, {"authorization": "Bearer x"}, {"authorization": "Basic 0123456789abcdef"}]:
        with pytest.raises(Unauthorized):
            provider.read(headers, message)
    with pytest.raises(Unauthorized):
        PostedMessages(bearer="0123456789abcdef").read(*standard(message))
    with pytest.raises(Malformed):
        provider.read({"authorization": "Bearer 0123456789abcdef"}, b"\r\n")
    for bearer in (None, "short", ""):
        with pytest.raises(ConfigurationError):
            PostedMessages(bearer=bearer)


# All of them

ALL: list[Provider[Any]] = [
    SesReports({TOPIC}, fetch=certificate, time=clock),
    SesInbound({TOPIC}, fetch=certificate, time=clock),
    SendGridReports(sendgrid_public_key(), time=clock),
    MailgunReports(MAILGUN_KEY, time=clock),
    MailgunInbound(MAILGUN_KEY, time=clock),
    PostmarkReports("postroom", "a password of 16+"),
    TwilioReports(TWILIO_TOKEN, TWILIO_URL),
    StandardReports(STANDARD_KEY, time=clock),
    PostedMessages(STANDARD_KEY, time=clock),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary(max_size=60), st.sampled_from(ALL), st.text(max_size=40))
def test_strangers_are_refused_whatever_they_say(body: bytes, provider: Provider[Any], word: str) -> None:
    names = [
        "authorization", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature",
        "x-twilio-signature", "x-twilio-email-event-webhook-signature",
        "x-twilio-email-event-webhook-timestamp",
    ]  # fmt: skip
    for headers in ({}, dict.fromkeys(names, word)):
        with pytest.raises((Unauthorized, Malformed)):
            provider.read(headers, body)


@settings(max_examples=40)
@given(VALUES, st.sampled_from(["bounce", "mail", "delivery", "complaint", "deliveryDelay"]))
def test_ses_may_say_anything(value: Any, field: str) -> None:
    kinds = {
        "bounce": "Bounce",
        "delivery": "Delivery",
        "complaint": "Complaint",
        "deliveryDelay": "DeliveryDelay",
    }
    event = ses_event(kinds.get(field, "Bounce"), "bounce", BOUNCE) | {field: value}
    for report in ses().read(JSON, sns(event)):
        assert all(said.address.isprintable() for said in report.recipients)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(EVENT)), VALUES), st.dictionaries(st.sampled_from(["event", "recipient",
       "message", "delivery-status", "timestamp"]), VALUES))  # fmt: skip
def test_sendgrid_and_mailgun_may_say_anything(event: dict[str, Any], other: dict[str, Any]) -> None:
    for report in sendgrid_reports().read(*sendgrid([EVENT | event])):
        assert report.recipients[0].text.isprintable()
    MailgunReports(MAILGUN_KEY, time=clock).read(JSON, mailgun(MAILGUN_EVENT | other))


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from(["action", "message_id", "recipient", "at", "text", "reports"]), VALUES)
)
def test_ones_own_may_say_anything(said: dict[str, Any]) -> None:
    try:
        reports = StandardReports(STANDARD_KEY, time=clock).read(
            *standard({"action": "failed", "remote_id": "x"} | said)
        )
    except Malformed:
        return
    assert all(report.recipients[0].address.isprintable() for report in reports)


# Fetching


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        moved = self.path == "/moved"
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/certificate")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"c" * 100_000)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
        pass


def test_https_get_verifies_bounds_and_does_not_follow() -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)  # pyright: ignore[reportUnknownMemberType] # names pyOpenSSL's types too
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType] # likewise
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        server.socket = server_context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            assert https_get(f"{url}/certificate", context) == b"c" * 65536
            for bad in [f"{url}/moved", "file:///etc/hostname", "http://127.0.0.1/"]:
                with pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
                    https_get(bad, context)
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                https_get(f"{url}/certificate")
        finally:
            server.shutdown()
            thread.join()
