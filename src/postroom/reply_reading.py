"""What a remote system said, as it goes on record: SMTP replies, exceptions, and times named in a text. Pure."""

import re
import smtplib
from dataclasses import replace

from postroom.outcomes import MAX_REPLY_TEXT, Reply
from postroom.reply_tables import EXCEPTION_NAMES
from postroom.retries import MAX_RETRY_AFTER

__all__ = ["exception_reply", "hinted_wait", "one_line", "smtp_reply"]


def one_line(text: str) -> str:
    """Return ``text`` on one line without control characters, cut to ``MAX_REPLY_TEXT`` characters."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:MAX_REPLY_TEXT]


_ENHANCED = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?=\s|$)")


def smtp_reply(code: int, lines: list[str], remote: str = "", tls: str = "") -> Reply:
    """Return the record of an SMTP reply.

    An enhanced status code is taken from the text where its class agrees with ``code`` (RFC 2034 section 4)
    and is removed from every line that carries it.

    Args:
        code: the reply code.
        lines: the text of each line, without the code.
        remote: the host that said it.
        tls: how the connection is secured, or "".
    """
    first = _ENHANCED.match(lines[0]) if lines else None
    if first is None or int(first[1]) != code // 100:
        return Reply(one_line(" ".join(lines)), "", code, remote, tls)
    status = first[0]
    text = " ".join(line.removeprefix(status).strip() for line in lines)
    return Reply(one_line(text), status, code, remote, tls)


def exception_reply(error: BaseException, remote: str = "", tls: str = "") -> Reply:
    """Return the record of an exception that was raised while talking to ``remote``."""
    name = next(name for name in EXCEPTION_NAMES if isinstance(error, name.exception))
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        lines = (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).splitlines()
        reply = smtp_reply(error.smtp_code, lines, remote, tls)
        return replace(reply, text=one_line(f"{name.text}: {reply.text}"), status=reply.status or name.status)
    text = one_line(f"{name.text}: {error}" if str(error) else name.text)
    return Reply(text, name.status, None, remote, tls)


_UNITS = {"s": 1, "m": 60, "h": 3600}
_HINT = re.compile(
    r"\b(?:in|after|for|wait)\s+(?:(?:about|another|at\s+least)\s+)?"
    r"(?:(?P<hours>\d{1,2}):(?P<minutes>\d\d):(?P<seconds>\d\d)\b"
    r"|(?P<number>\d{1,6})\s*(?P<unit>s|m|h)(?:ecs?|econds?|ins?|inutes?|rs?|ours?)?\b)",
    re.IGNORECASE,
)


def hinted_wait(text: str) -> float | None:
    """Return the seconds that a text such as "greylisted, try again in 5 minutes" asks us to wait.

    None when it names no time, or several that differ; at most ``MAX_RETRY_AFTER``.
    """
    waits: set[int] = set()
    for hint in _HINT.finditer(text):
        if hint["unit"]:
            waits.add(int(hint["number"]) * _UNITS[hint["unit"].lower()])
        else:
            waits.add(int(hint["hours"]) * 3600 + int(hint["minutes"]) * 60 + int(hint["seconds"]))
    if len(waits) != 1:
        return None
    (wait,) = waits
    return min(float(wait), MAX_RETRY_AFTER) if wait else None
