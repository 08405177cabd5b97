"""A standard library message as octets, without changing the caller's object.

The email package writes MIME boundaries into the message it serialises, folds what it is given and believes
header values of :class:`email.message.Message` without looking: so a copy is serialised, of which every
header was looked at.
"""

import copy
import re
from base64 import encodebytes
from binascii import b2a_qp
from collections.abc import Iterator
from email.errors import MessageError
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import Address as HeaderAddress
from email.headerregistry import Group, HeaderRegistry
from email.message import Message as EmailMessage
from email.policy import EmailPolicy, Policy
from io import BytesIO
from itertools import count
from typing import Any, Final, NoReturn

from postroom.domains import Malformed, canonical_domain
from postroom.errors import InvalidMessage

__all__ = ["MAX_LINE", "serialise"]

MAX_LINE: Final = 998
"""Octets of a line without its CRLF (RFC 5322 section 2.1.1)."""

_NAME = re.compile(r"[!-9;-~]+")
# A line end that does not fold, or one that folds into an empty line: either would start something new.
_INJECTION = re.compile(r"\r(?!\n)|\n(?![ \t]+[^\s])|\0")
_UNFOLDED = re.compile(rb"\r(?!\n)|\n(?![ \t])|\0")
_SURROGATES = re.compile("[\ud800-\udfff]")
# With ": ", the line length that the policies fold at.
_SHORT = 76
_make_header = HeaderRegistry()


class _CheckedPolicy(EmailPolicy):
    """Looks at every field after folding, which decodes encoded words and parameters, line ends included."""

    def fold_binary(self, name: str, value: str) -> bytes:
        folded = super().fold_binary(name, value)
        if _UNFOLDED.search(folded, 0, len(folded) - 2):
            _refuse_line_end(name)
        return folded


_POLICIES = {
    (utf8, cte_type): _CheckedPolicy(linesep="\r\n", utf8=utf8, cte_type=cte_type)
    for utf8 in (False, True)
    for cte_type in ("7bit", "8bit")
}


def serialise(message: EmailMessage, unique: str, *, encode: bool = False) -> bytes:
    """Return ``message`` with CRLF line ends and ASCII headers (RFC 2047); UTF-8 if an address needs it.

    Args:
        message: an ``EmailMessage`` or a ``Message`` of any policy; not changed.
        unique: for MIME boundaries, where the message has none yet.
        encode: re-encode the text parts whose lines are too long or hold NUL, and binary ones in base64.

    Raises:
        InvalidMessage: a header value would start another line, or the email package cannot serialise it.
    """
    attempt = 0
    while True:
        token = f"=_{unique}_{attempt}"
        try:
            copied = _Copy(token, encode=encode)
            root = copied.of(message)
            content = _flatten(root, copied.policy(message.policy))
        except UnicodeError as error:
            if encode:
                raise InvalidMessage(
                    "message", f"cannot be encoded ({error})", "set text with set_content()"
                ) from error
            return serialise(message, unique, encode=True)
        except InvalidMessage:
            raise
        except (MessageError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise InvalidMessage(
                "message", f"cannot be serialised ({error})", "build it with set_content()"
            ) from error
        if content.count(f"\n--{token}".encode()) == copied.delimiters:
            return content
        # A part holds a line like our delimiter: take another one.
        attempt += 1


def _flatten(message: EmailMessage, policy: "Policy[Any]") -> bytes:
    buffer = BytesIO()
    BytesGenerator(buffer, mangle_from_=False, policy=policy).flatten(message, unixfrom=False)
    return buffer.getvalue()


class _Copy:
    """Copies a message and learns on the way what its serialisation needs."""

    def __init__(self, token: str, *, encode: bool) -> None:
        self.delimiters = 0
        self._utf8 = False
        self._encode = encode
        self._boundaries = (f"{token}_{number:03d}" for number in count())

    def policy(self, own: "Policy[Any]") -> "Policy[Any]":
        return _POLICIES[self._utf8, "7bit" if own.cte_type == "7bit" else "8bit"]

    def of(self, part: EmailMessage, *, inner: bool = False) -> EmailMessage:
        # Not deepcopy: it copies the parse tree of every header, which takes longer than all the rest.
        # The two attributes are the email package's own, unchanged since Python 2.2 and guarded by the tests.
        copied = copy.copy(part)
        state = vars(copied)
        state["_headers"] = [
            (_field_name(name), self._value(name, value, inner=inner)) for name, value in part.raw_items()
        ]
        payload: Any = state["_payload"]
        if isinstance(payload, list):
            state["_payload"] = [self.of(each, inner=True) for each in _parts(payload)]
            if copied.get_content_maintype() == "multipart" and not copied.get_boundary():
                copied.set_boundary(next(self._boundaries))
                self.delimiters += max(len(state["_payload"]), 1) + 1
        elif self._encode:
            _encode_leaf(copied)
        return copied

    def _value(self, name: str, value: Any, *, inner: bool) -> Any:
        if isinstance(value, Header):
            value = value.encode(linesep="\n")
        text = str(value)
        if _INJECTION.search(text):
            _refuse_line_end(name)
        if hasattr(value, "name"):
            if not text.isascii():
                return self._international(name, value)
            # Folding walks the parse tree, which is most of the cost; a short line of text needs none.
            plain = len(name) + len(text) <= _SHORT and "=?" not in text and not hasattr(value, "params")
            return text if plain else value
        if text.isascii():
            return text
        if _SURROGATES.search(text):
            try:
                text = text.encode("ascii", "surrogateescape").decode()
            except UnicodeError as error:
                if inner:
                    return text
                # Python 3.13 would write them as "unknown-8bit", which nobody can read.
                raise InvalidMessage(
                    name, "holds octets that are not UTF-8", "decode it, or encode it as RFC 2047 has it"
                ) from error
        return self._international(name, _make_header(name, "".join(text.splitlines())))

    def _international(self, name: str, header: Any) -> Any:
        """Return an address header with its domains in A-labels; note when a local part needs UTF-8."""
        addresses = [
            address for address in getattr(header, "addresses", ()) if not address.addr_spec.isascii()
        ]
        if not addresses:
            return header
        try:
            return _make_header(
                name,
                [
                    Group(group.display_name, tuple(map(_with_ascii_domain, group.addresses)))
                    for group in header.groups
                ],
            )
        except Malformed:
            self._utf8 = True
            return header
        finally:
            self._utf8 = self._utf8 or any(not address.username.isascii() for address in addresses)


def _refuse_line_end(name: str) -> NoReturn:
    raise InvalidMessage(name, "holds a line end or NUL", "give the value as one line; it is folded for you")


def _field_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidMessage(
            "message", f"{name[:60]!r} is no header field name", "use printable ASCII without colon"
        )
    return name


def _parts(payload: Any) -> Iterator[EmailMessage]:
    for part in payload:
        if not isinstance(part, EmailMessage):
            raise InvalidMessage(
                "message", f"holds a part that is {type(part).__name__}", "attach message objects"
            )
        yield part


def _with_ascii_domain(address: HeaderAddress) -> HeaderAddress:
    if address.domain.isascii():
        return address
    return HeaderAddress(address.display_name, address.username, canonical_domain(address.domain))


def _encode_leaf(part: EmailMessage) -> None:
    """Give a part whose lines cannot be sent as they are another transfer encoding."""
    state = vars(part)
    payload = state["_payload"]
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    kind = part.get_content_maintype()
    if not isinstance(payload, str) or kind in {"multipart", "message"} or encoding == "quoted-printable":
        return
    if encoding == "base64":
        digits = "".join(payload.split())
        state["_payload"] = "".join(f"{digits[at : at + 76]}\n" for at in range(0, len(digits), 76))
        return
    try:
        octets = payload.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        octets = payload.encode()
        part.set_param("charset", "utf-8")
    else:
        if b"\0" not in octets and max(map(len, octets.splitlines()), default=0) <= MAX_LINE:
            return
    del part["Content-Transfer-Encoding"]
    if kind == "text":
        part["Content-Transfer-Encoding"] = "quoted-printable"
        encoded = b2a_qp(octets.replace(b"\r\n", b"\n"), istext=True).replace(b"\r", b"=0D")
    else:
        part["Content-Transfer-Encoding"] = "base64"
        encoded = encodebytes(octets)
    state["_payload"] = encoded.decode("ascii")
