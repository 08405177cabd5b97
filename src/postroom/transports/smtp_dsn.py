"""The parameters of the SMTP extension for delivery status notifications (RFC 3461). Pure.

They tell the server what to report to the envelope sender once it took over the message: what we learn of
ourselves, we report ourselves. NOTIFY always goes with a recipient, since a server that is told nothing may report
delays that nobody asked for (RFC 3461 section 4.1).
"""

import re
from functools import lru_cache

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.options import RecipientOptions

__all__ = ["asked_of", "mail_parameters", "rcpt_parameters", "utf8_xtext", "xtext"]

MAX_ENVID = 100
"""Characters of the ENVID parameter's value (RFC 3461 section 4.4)."""

MAX_ORCPT = 500
"""Characters of the ORCPT parameter's value (RFC 3461 section 4.2)."""

_PLAIN = re.compile(r"[!-*,-<>-~]*")
_TO_ESCAPE = re.compile(r"[^!-*,-<>-~]")
# RFC 6533 section 3 has the backslash as its escape.
_NOT_UTF8_PLAIN = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_UNITEXT = re.compile(r"[^!-*,-<>-\[\]-~\x80-\U0010ffff]")
_NOT_A_TYPE = re.compile(r"[^A-Za-z0-9-]")
_WORDS = (("success", "SUCCESS"), ("failure", "FAILURE"), ("delay", "DELAY"))
_NO_OPTIONS = RecipientOptions()


def xtext(text: str) -> str:
    """Return ``text``, ASCII, as xtext (RFC 3461 section 4): "+" and two hexadecimal digits for what is special."""
    if _PLAIN.fullmatch(text):
        return text
    return _TO_ESCAPE.sub(lambda char: f"+{ord(char[0]):02X}", text)


def utf8_xtext(text: str, *, unicode: bool) -> str:
    r"""Return an address in the form that RFC 6533 section 3 has for ORCPT: ``\x{…}`` for what is special.

    Args:
        text: the address.
        unicode: leave characters beyond ASCII as they are (``utf-8-addr-unitext``), for a transaction with
            SMTPUTF8; otherwise the form is ASCII (``utf-8-addr-xtext``).
    """
    special = _NOT_UNITEXT if unicode else _NOT_UTF8_PLAIN
    return special.sub(lambda char: rf"\x{{{ord(char[0]):02X}}}", text)


def asked_of(delivery: Delivery, target: Target) -> str:
    """Return what the sender wants to be told of one recipient, as "delay,failure,success"; "" for nothing."""
    options = target.options
    return delivery.report if options is None or options.report is None else options.report


def mail_parameters(delivery: Delivery) -> bytes:
    """Return RET and ENVID, each with the blank before it, for a server that offers DSN."""
    options = delivery.options
    if options is None:
        return b""
    said = ""
    if options.ret:
        said = " RET=HDRS" if options.ret == "hdrs" else " RET=FULL"
    if options.envid and options.envid.isascii():
        envid = xtext(options.envid)
        # Too long a name is left out rather than cut: it would name something else.
        if len(envid) <= MAX_ENVID:
            said += f" ENVID={envid}"
    return said.encode("ascii")


def rcpt_parameters(delivery: Delivery, target: Target) -> str:
    """Return NOTIFY and ORCPT, each with the blank before it, for a server that offers DSN.

    Characters beyond ASCII stand in it only for an address that needs SMTPUTF8 anyway.
    """
    return _rcpt_parameters(asked_of(delivery, target), target.address, target.options or _NO_OPTIONS)


@lru_cache(maxsize=4096)
def _rcpt_parameters(asked: str, address: Address, options: RecipientOptions) -> str:
    wanted = asked.split(",") if asked else []
    notify = ",".join(word for name, word in _WORDS if name in wanted) or "NEVER"
    orcpt = _orcpt(address, options)
    return f" NOTIFY={notify}" + (f" ORCPT={orcpt}" if 0 < len(orcpt) <= MAX_ORCPT else "")


def _orcpt(address: Address, options: RecipientOptions) -> str:
    """Return the value of ORCPT (RFC 3461 section 4.2, RFC 6533 section 3), "" if there is no good one."""
    if options.orcpt:
        kind, _, value = options.orcpt.partition(";")
    else:
        original = options.original or address
        # Types that are not registered for mail begin with "x-".
        kind = "rfc822" if original.type == "smtp" else "x-" + _NOT_A_TYPE.sub("-", original.type)
        value = original.value
    if not value or not kind or _NOT_A_TYPE.search(kind):
        return ""
    if value.isascii() and kind.lower() != "utf-8":
        return f"{kind};{xtext(value)}"
    return f"utf-8;{utf8_xtext(value, unicode=not address.value.isascii())}"
