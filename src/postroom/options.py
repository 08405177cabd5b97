"""What a submission may say beyond the ordinary, kept as JSON beside the record; nearly always there is none of it."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from postroom.addresses import Address

__all__ = ["MessageOptions", "RecipientOptions"]


def _written(address: Address) -> str:
    return f"{address.type}:{address.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientOptions:
    """What is said of one recipient beyond its address.

    Attributes:
        alternatives: where to turn, in this order, when the address fails for good or expires.
        original: the address it had before it failed over, was changed or rerouted by an operator; None when it never
            changed.
        orcpt: the original recipient that reports name (RFC 3461 section 4.2), as "rfc822;ann@example.org"; "" to
            make it from the address.
        report: for this recipient in place of the message's, in the form of
            :attr:`postroom.stores.base.NewMessage.report`; None for the message's.
        via: the distribution lists that it came from, outermost first.
    """

    alternatives: tuple[Address, ...] = ()
    original: Address | None = None
    orcpt: str = ""
    report: str | None = None
    via: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return what is stored; only what differs from the defaults."""
        said: dict[str, Any] = {}
        if self.alternatives:
            said["alternatives"] = [_written(address) for address in self.alternatives]
        if self.original is not None:
            said["original"] = _written(self.original)
        if self.orcpt:
            said["orcpt"] = self.orcpt
        if self.report is not None:
            said["report"] = self.report
        if self.via:
            said["via"] = list(self.via)
        return json.dumps(said, ensure_ascii=False)

    @staticmethod
    def from_json(text: str | None) -> "RecipientOptions | None":
        """Return what :meth:`to_json` wrote; None for None."""
        return None if text is None else _recipient_options(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOptions:
    """What is said of a message beyond the ordinary envelope.

    Attributes:
        ret: what a failure report returns: "full", "hdrs" or "" for the usual (RFC 3461 section 4.3).
        envid: the sender's own name for it (RFC 3461 section 4.4), "" without.
        window: the delivery window as text (:mod:`postroom.windows`), "" for any time.
        report_of: the number of the message that this one reports on, None for ordinary messages.
        resend_of: the number of the message that an operator sent again as this one, None for ordinary messages.
        added_by: the preprocessors that added it, the latest last, separated by commas; "" for what was submitted. They
            do not see it (:mod:`postroom.hooks`).
        announces: the subscriber whom it tells of events (:mod:`postroom.notifying.subscribers`); "" for ordinary
            messages.
    """

    ret: str = ""
    envid: str = ""
    window: str = ""
    report_of: int | None = None
    resend_of: int | None = None
    added_by: str = ""
    announces: str = ""

    def to_json(self) -> str:
        """Return what is stored; only what differs from the defaults."""
        said = {name: value for name in self.__slots__ if (value := getattr(self, name)) not in {"", None}}
        return json.dumps(said, ensure_ascii=False)

    @staticmethod
    def from_json(text: str | None) -> "MessageOptions | None":
        """Return what :meth:`to_json` wrote; None for None."""
        return None if text is None else _message_options(text)


def _address(text: str) -> Address:
    kind, _, value = text.partition(":")
    return Address(kind, value)


@lru_cache(maxsize=1024)
def _recipient_options(text: str) -> RecipientOptions:
    said = json.loads(text)
    original = said.get("original")
    return RecipientOptions(
        alternatives=tuple(_address(address) for address in said.get("alternatives", ())),
        original=None if original is None else _address(original),
        orcpt=said.get("orcpt", ""),
        report=said.get("report"),
        via=tuple(said.get("via", ())),
    )


@lru_cache(maxsize=1024)
def _message_options(text: str) -> MessageOptions:
    return MessageOptions(**json.loads(text))
