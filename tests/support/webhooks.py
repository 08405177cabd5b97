"""What providers send, signed as they describe it, with other people's code than ours."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

NOW = 1_700_000_000.0
"""2023-11-14T22:13:20Z."""

TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
CERT_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
STANDARD_KEY = bytes(range(32))
MAILGUN_KEY = "key-0123456789abcdef"
TWILIO_TOKEN = "0123456789abcdef0123456789abcdef"
TWILIO_URL = "https://app.example.org/hooks/twilio?x=1"


def clock() -> float:
    return NOW


@cache
def sns_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def sns_certificate() -> bytes:
    """Return a certificate as SNS would have one, valid for a year around ``NOW``."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    at = datetime.fromtimestamp(NOW, UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(sns_key().public_key())
        .serial_number(1)
        .not_valid_before(at - timedelta(days=180))
        .not_valid_after(at + timedelta(days=180))
        .sign(sns_key(), hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def sns(message: Any, *, version: str = "2", changed: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """Return a notification, signed; ``changed`` is changed behind the signature's back."""
    said = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2023-11-14T22:13:20.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERT_URL,
    }
    said |= fields
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{said[name]}\n" for name in names if name in said)
    digest: hashes.HashAlgorithm = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303 - Amazon's
    said["Signature"] = base64.b64encode(sns_key().sign(signed.encode(), padding.PKCS1v15(), digest)).decode()
    return json.dumps(said | (changed or {})).encode()


@cache
def sendgrid_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sendgrid_public_key() -> str:
    der = (
        sendgrid_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(der).decode()


def sendgrid(events: Any, stamp: str = "1700000000") -> tuple[dict[str, str], bytes]:
    body = json.dumps(events).encode()
    signature = sendgrid_key().sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {
        "content-type": "application/json",
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": stamp,
    }, body


def mailgun_signature(stamp: str = "1700000000", token: str = "t" * 50) -> dict[str, str]:
    signature = hmac.new(MAILGUN_KEY.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
    return {"timestamp": stamp, "token": token, "signature": signature}


def mailgun(event: dict[str, Any], **signed: str) -> bytes:
    return json.dumps({"signature": mailgun_signature(**signed), "event-data": event}).encode()


def twilio(fields: dict[str, str], url: str = TWILIO_URL) -> tuple[dict[str, str], bytes]:
    text = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    signature = hmac.new(TWILIO_TOKEN.encode(), text.encode(), hashlib.sha1).digest()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": base64.b64encode(signature).decode(),
    }
    return headers, urlencode(fields).encode()


def standard(
    body: bytes | dict[str, Any], *, at: float = NOW, name: str = "msg_1", kind: str = "application/json"
) -> tuple[dict[str, str], bytes]:
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    when = datetime.fromtimestamp(at, UTC)
    return {
        "content-type": kind,
        "webhook-id": name,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": Webhook(STANDARD_KEY).sign(name, when, octets.decode()),
    }, octets


def basic(username: str, password: str) -> dict[str, str]:
    credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"content-type": "application/json", "authorization": f"Basic {credentials}"}
