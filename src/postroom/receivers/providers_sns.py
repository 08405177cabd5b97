"""Amazon SNS: notifications that are signed with a certificate of Amazon's.

The signature proves that SNS sent a notification, and not whose topic it is of: anybody can have a topic. So the topics
are named, and others are refused. The certificate is taken only from SNS's own hosts; "amazonaws.com" as such would let
everybody in who may put a file there.
"""

import base64
import importlib
import logging
import re
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPMessage
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from postroom.errors import ConfigurationError
from postroom.receivers.providers_base import (
    Malformed,
    Unauthorized,
    Unavailable,
    check_age,
    json_value,
    moment,
    record,
)

if TYPE_CHECKING:
    from postroom.receivers.providers_crypto import Certificate

__all__ = ["Notification", "SnsTopics", "crypto", "https_get"]

log = logging.getLogger("postroom.receivers")

MAX_FETCHED: Final = 64 * 1024
"""Octets of a certificate."""

FETCH_SECONDS: Final = 10.0
MAX_CERTIFICATES: Final = 8

_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(?:\.cn)?")
_CERTIFICATE_PATH: Final = re.compile(r"/[A-Za-z0-9._-]{1,200}\.pem")
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
    "UnsubscribeConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
"""The fields that are signed, in this order."""


class Notification(NamedTuple):
    """What was published.

    Attributes:
        id: the same each time it is delivered.
        message: the text.
        at: wall-clock seconds.
    """

    id: str
    message: str
    at: float


def crypto() -> Any:
    """Return :mod:`postroom.receivers.providers_crypto`.

    Raises:
        ConfigurationError: the package it needs is not installed.
    """
    try:
        return importlib.import_module("postroom.receivers.providers_crypto")
    except ImportError:
        raise ConfigurationError(
            "providers",
            "signatures of this provider need the package cryptography",
            "run: pip install cryptography",
        ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0913, PLR0917 - urllib's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow nothing: the host was checked, and another one was not."""
        del req, fp, code, msg, headers, newurl


def https_get(url: str, context: ssl.SSLContext | None = None) -> bytes:
    """Return up to 64 KiB of what is at an https URL, over a verified connection, within 10 seconds of silence.

    No redirect is followed, and no proxy of the environment is used.

    Args:
        url: where.
        context: None for the machine's certificates.

    Raises:
        OSError: it cannot be had, or is no https URL.
    """
    if urlsplit(url).scheme != "https":
        raise OSError("not an https URL")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=context or ssl.create_default_context()),
        _NoRedirect(),
    )
    with opener.open(url, timeout=FETCH_SECONDS) as answer:
        return cast("bytes", answer.read(MAX_FETCHED))


class SnsTopics:
    """Opens the notifications of some topics. Thread-safe.

    Args:
        topics: their ARNs.
        fetch: returns the octets at an https URL; raises OSError.
        confirm: is called with the URL that confirms a subscription to one of the topics, for example
            :func:`https_get`; None to leave that to people, who find it in the console.
        tolerance: seconds after which a notification is too old. SNS dates it when it is published, and tries for an
            hour if told to; a report that is told again does no harm.
        time: wall clock, in seconds.
    """

    def __init__(
        self,
        topics: Collection[str],
        *,
        fetch: Callable[[str], bytes] = https_get,
        confirm: Callable[[str], object] | None = None,
        tolerance: float = 3600.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(topics, str) or not topics or not all(topic.startswith("arn:") for topic in topics):
            raise ConfigurationError(
                "topics",
                "they are no ARNs of topics",
                'give them as in {"arn:aws:sns:eu-west-1:123456789012:bounces"}',
            )
        self._crypto = crypto()
        self._topics = frozenset(topics)
        self._fetch = fetch
        self._confirm = confirm
        self._tolerance = tolerance
        self._time = time
        self._certificates: dict[str, Certificate] = {}
        self._lock = threading.Lock()

    def open(self, body: bytes) -> Notification | None:
        """Return what was published, None for what concerns the subscription.

        Raises:
            Unauthorized: it is of another topic, not signed by SNS, or too old.
            Malformed: it is no notification.
            Unavailable: the certificate cannot be fetched, or the subscription not be confirmed.
        """
        said = record(json_value(body))
        kind = said.get("Type")
        signed = _SIGNED.get(kind) if isinstance(kind, str) else None
        if signed is None:
            raise Malformed("not a notification of SNS")
        self._check(said, signed)
        if kind == "Notification":
            at = moment(str(said["Timestamp"]))
            return Notification(str(said["MessageId"]), str(said["Message"]), at or 0.0)
        if kind == "SubscriptionConfirmation":
            self._subscribe(str(said["TopicArn"]), str(said["SubscribeURL"]))
        return None

    def _check(self, said: Mapping[str, Any], signed: tuple[str, ...]) -> None:
        if str(said.get("TopicArn")) not in self._topics:
            raise Unauthorized("of another topic")
        at = moment(str(said.get("Timestamp")))
        check_age("none" if at is None else at, self._time(), self._tolerance)
        version = str(said.get("SignatureVersion"))
        if version not in {"1", "2"}:
            raise Unauthorized("the signature is of an unknown version")
        lines: list[str] = []
        for name in signed:
            value = said.get(name)
            if value is None and name == "Subject":
                continue
            if not isinstance(value, str):
                raise Malformed(f"{name} is missing")
            lines += (name, value)
        octets = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
        certificate = self._certificate(str(said.get("SigningCertURL")))
        signature = self._crypto.decoded(str(said.get("Signature")))
        if not certificate.holds(self._time()):
            raise Unauthorized("the certificate is not valid now")
        if not certificate.signed(octets, signature, sha256=version == "2"):
            raise Unauthorized("the signature is wrong")

    def _certificate(self, url: str) -> "Certificate":
        if not _is_of_sns(url) or not _CERTIFICATE_PATH.fullmatch(urlsplit(url).path):
            raise Unauthorized("the certificate is not SNS's")
        with self._lock:
            known = self._certificates.get(url)
        if known is not None:
            return known
        try:
            certificate: Certificate = self._crypto.Certificate(self._fetch(url))
        except OSError as error:
            raise Unavailable(f"the certificate cannot be fetched: {error}") from error
        except ValueError as error:
            raise Unauthorized(f"the certificate is none: {error}") from error
        with self._lock:
            if len(self._certificates) >= MAX_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = certificate
        return certificate

    def _subscribe(self, topic: str, url: str) -> None:
        if self._confirm is None:
            log.warning("SNS asks to confirm the subscription to %s: do it there, or give confirm=", topic)
            return
        if not _is_of_sns(url):
            raise Unauthorized("the subscription would be confirmed elsewhere")
        try:
            self._confirm(url)
        except OSError as error:
            raise Unavailable(f"the subscription cannot be confirmed: {error}") from error
        log.info("confirmed the subscription to %s", topic)


def _is_of_sns(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and port in {None, 443} and _HOST.fullmatch(parts.netloc) is not None


def base64_text(text: str) -> bytes:
    """Return what base64 stands for.

    Raises:
        Malformed: it is none.
    """
    try:
        return base64.b64decode(text)
    except ValueError:
        raise Malformed("not base64") from None
