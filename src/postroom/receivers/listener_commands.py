"""The arguments of MAIL and RCPT as a listener reads them: paths, and the parameters of the extensions it offers. Pure.

The extensions are SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461 with RFC 6533) and AUTH
(RFC 4954).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from postroom.addresses import Address, parse_address
from postroom.envelope_fields import check_envid
from postroom.envelope_recipients import Recipient, Report, recipient_options
from postroom.errors import UsageError

__all__ = ["MailCommand", "RcptCommand", "Refused", "parse_mail", "parse_rcpt", "unxtext"]


class Refused(Exception):
    """A command, a recipient or a message is refused.

    Attributes:
        reply: what the client is told: code, enhanced status code and text, in ASCII and on one line.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class MailCommand:
    """What MAIL says.

    Attributes:
        sender: canonical, "" for the null reverse-path.
        size: octets that the client announces, 0 when it says nothing.
        smtputf8: the client wants SMTPUTF8.
        ret: what a failure report returns, None when the client does not say.
        envid: decoded, None without.
    """

    sender: str
    size: int = 0
    smtputf8: bool = False
    ret: Literal["full", "headers"] | None = None
    envid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RcptCommand:
    """What RCPT says.

    Attributes:
        address: canonical.
        report: of NOTIFY, None when the client does not say.
        orcpt: as "rfc822;ann@example.org", decoded; "" without.
    """

    address: str
    report: frozenset[Report] | None = None
    orcpt: str = ""


_QUOTED = r'"(?:[^"\\]|\\.)*"'
# A source route is accepted and not followed (RFC 5321 appendix C). Angle brackets are often forgotten by hand.
_PATH = re.compile(rf"<(?:@[^<>:\"\s]*:)?((?:{_QUOTED}|[^\s<>\"])*)>|((?:{_QUOTED}|[^\s<>\"])+)")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_NOT_XTEXT = re.compile(r"[^!-~]|[+](?![0-9A-F]{2})|=")
_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_REPORTS = {"SUCCESS": Report.SUCCESS, "FAILURE": Report.FAILURE, "DELAY": Report.DELAY}
_OF_MAIL = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID"})
_OF_MAIL_WITH_AUTH = _OF_MAIL | {"AUTH"}
_RET: dict[str, Literal["full", "headers"]] = {"FULL": "full", "HDRS": "headers"}
_MAX_DIGITS = 20  # RFC 1870 section 3

_ANYBODY = Address("smtp", "postmaster@localhost")

_NO_UTF8 = "553 5.6.7 The address needs SMTPUTF8, which was not asked for in MAIL"


def parse_mail(argument: str | None, *, auth: bool = False) -> MailCommand:
    """Return what MAIL says.

    Args:
        argument: what follows the verb.
        auth: AUTH is offered, so that its parameter is understood (and not heeded: RFC 4954 section 5 has it mean
            something only among servers that trust each other).

    Raises:
        Refused: with the reply.
    """
    path, parameters = _split(argument, "FROM:", "MAIL FROM:<address>")
    said = _parameters(parameters, _OF_MAIL_WITH_AUTH if auth else _OF_MAIL)
    if said.get("SMTPUTF8") is not None:
        raise Refused("501 5.5.4 SMTPUTF8 takes no value")
    smtputf8 = "SMTPUTF8" in said
    if "BODY" in said and (said["BODY"] or "").upper() not in {"7BIT", "8BITMIME"}:
        raise Refused("501 5.5.4 BODY is 7BIT or 8BITMIME")
    return MailCommand(
        sender=_mailbox(path, smtputf8=smtputf8, field="sender") if path else "",
        size=_size(said),
        smtputf8=smtputf8,
        ret=_ret(said),
        envid=_envid(said),
    )


def parse_rcpt(argument: str | None, *, smtputf8: bool, hostname: str) -> RcptCommand:
    """Return what RCPT says.

    Args:
        argument: what follows the verb.
        smtputf8: SMTPUTF8 was asked for in MAIL.
        hostname: our domain: whose postmaster ``<Postmaster>`` is (RFC 5321 section 4.5.1).

    Raises:
        Refused: with the reply.
    """
    path, parameters = _split(argument, "TO:", "RCPT TO:<address>")
    said = _parameters(parameters, {"NOTIFY", "ORCPT"})
    if path.lower() == "postmaster":
        path = f"postmaster@{hostname}"
    elif not path:
        raise Refused("553 5.1.3 The null path is no recipient")
    return RcptCommand(
        address=_mailbox(path, smtputf8=smtputf8, field="to"),
        report=_notify(said["NOTIFY"]) if "NOTIFY" in said else None,
        orcpt=_orcpt(said["ORCPT"], smtputf8=smtputf8) if "ORCPT" in said else "",
    )


def unxtext(text: str) -> str:
    """Return what xtext stands for (RFC 3461 section 4).

    Raises:
        ValueError: it is none.
    """
    if _NOT_XTEXT.search(text):
        raise ValueError(f"{text[:100]!r} is no xtext")
    return _HEX.sub(lambda found: chr(int(found[1], 16)), text)


def _split(argument: str | None, keyword: str, syntax: str) -> tuple[str, str]:
    """Return the path without its angle brackets, and the parameters."""
    if argument is not None and argument[: len(keyword)].upper() == keyword:
        rest = argument[len(keyword) :].lstrip(" ")
        found = _PATH.match(rest)
        if found is not None:
            after = rest[found.end() :]
            if not after or after[0] == " ":
                return found[1] if found[1] is not None else found[2], after
    raise Refused(f"501 5.5.4 Syntax: {syntax}")


def _parameters(text: str, known: Collection[str]) -> dict[str, str | None]:
    said: dict[str, str | None] = {}
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise Refused("501 5.5.4 A parameter is malformed")
        keyword = found[1].upper()
        if keyword not in known:
            raise Refused(f"555 5.5.4 The parameter {keyword[:30]} is not recognized")
        if keyword in said:
            raise Refused(f"501 5.5.4 {keyword} is given twice")
        said[keyword] = found[2]
    return said


def _mailbox(path: str, *, smtputf8: bool, field: str) -> str:
    if not path.isascii() and not smtputf8:
        raise Refused(_NO_UTF8)
    try:
        # With its type, so that nothing in the local part is taken for one.
        return parse_address(f"smtp:{path}", field=field).value
    except UsageError as error:
        status = "5.1.7" if field == "sender" else "5.1.3"
        problem = error.problem.encode("ascii", "replace").decode("ascii")
        raise Refused(f"553 {status} The address {problem}"[:500]) from None


def _size(said: dict[str, str | None]) -> int:
    if "SIZE" not in said:
        return 0
    size = said["SIZE"]
    if size is None or not (size.isascii() and size.isdigit() and len(size) <= _MAX_DIGITS):
        raise Refused("501 5.5.4 SIZE is a number of octets")
    return int(size)


def _ret(said: dict[str, str | None]) -> Literal["full", "headers"] | None:
    if "RET" not in said:
        return None
    ret = _RET.get((said["RET"] or "").upper())
    if ret is None:
        raise Refused("501 5.5.4 RET is FULL or HDRS")
    return ret


def _envid(said: dict[str, str | None]) -> str | None:
    if "ENVID" not in said:
        return None
    try:
        return check_envid(unxtext(said["ENVID"] or ""))
    except ValueError:  # UsageError is one
        raise Refused("501 5.5.4 ENVID is xtext of at most 100 printable characters") from None


def _notify(value: str | None) -> frozenset[Report]:
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return frozenset()
    if not _REPORTS.keys() >= set(words) or len(set(words)) != len(words):
        raise Refused("501 5.5.4 NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
    return frozenset(_REPORTS[word] for word in words)


def _orcpt(value: str | None, *, smtputf8: bool) -> str:
    try:
        return _read_orcpt(value or "", smtputf8=smtputf8)
    except (ValueError, OverflowError):  # UsageError and UnicodeError are among them
        raise Refused("501 5.5.4 ORCPT is an address type, a semicolon and an address as xtext") from None


def _read_orcpt(value: str, *, smtputf8: bool) -> str:
    kind, semicolon, text = value.partition(";")
    if not text.isascii() and not smtputf8:
        raise ValueError(text)
    if kind.lower() == "utf-8":
        # RFC 6533 section 3: both of its forms are read alike.
        decoded = _UNICODE.sub(lambda found: chr(int(found[1], 16)), text)
        decoded.encode()
    else:
        decoded = unxtext(text)
    given = Recipient(_ANYBODY, orcpt=f"{kind}{semicolon}{decoded}")
    options = recipient_options(given, _ANYBODY, "to")
    return "" if options is None else options.orcpt
