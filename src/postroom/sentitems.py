"""What lists and searches of the archive show: public values made from the record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from postroom.addresses import Address
from postroom.ids import format_id
from postroom.outcomes import Reply
from postroom.recipients import State

__all__ = ["Erasure", "Exported", "Found", "SentItem", "SentRecipient"]


@dataclass(frozen=True, slots=True)
class SentRecipient:
    """A recipient in a list of the archive.

    Attributes:
        index: its number within the message, from 0.
        address: where it went.
        state: how it ended, or where it stands.
        transport: who had it last.
        changed: wall-clock seconds of its last change, or None.
        reply: what was said last, or None.
    """

    index: int
    address: Address
    state: State
    transport: str
    changed: float | None
    reply: Reply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentItem:
    """A message in a list of the archive. Times are wall-clock seconds, sizes octets.

    Attributes:
        key: its number.
        sender: envelope sender, "" for the null reverse-path.
        tenant: whose it is, "" for nobody's in particular.
        subject: decoded.
        message_id: the Message-ID header.
        created: when it was submitted.
        changed: when a recipient changed last: of a complete message when it was complete.
        size: of its content.
        content_kept: whether its octets are still there.
        recipient_count: how many recipients it has.
        states: how many of them are in each state.
        recipients: the first 20 of them; ``status(id)`` has all, with their history.
    """

    key: int = field(repr=False)
    sender: str
    tenant: str
    subject: str
    message_id: str
    created: float
    changed: float | None
    size: int
    content_kept: bool
    recipient_count: int
    states: Mapping[State, int]
    recipients: tuple[SentRecipient, ...]

    @property
    def id(self) -> str:
        """The message's id."""
        return format_id(self.key)

    @property
    def complete(self) -> bool:
        """Whether every recipient is settled."""
        return all(state.is_final for state in self.states)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; iterates over ``items``.

    Attributes:
        items: the newest first.
        complete: the index covers every message in the spool. If not, newer ones may be missing.
        indexed_until: the time of submission, in wall-clock seconds, up to which the index has come; None: not begun.
    """

    items: tuple[SentItem, ...]
    complete: bool
    indexed_until: float | None

    def __iter__(self) -> Iterator[SentItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        messages: written.
        octets: of their content.
        skipped: messages whose octets are gone (``Settings.keep_content``).
        sample: the ids of the first 20 skipped ones.
    """

    messages: int
    octets: int
    skipped: int
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What an erasure found, and whether it is done.

    Attributes:
        address: whose.
        applied: False for a preview: nothing was changed.
        tombstone: what stands where the address stood; "" in a preview.
        messages: in which the address stands anywhere.
        sent: those of them from the address.
        recipients: that have, had or might have got the address.
        inbound: incoming messages in which it stands anywhere.
        contents: messages whose octets go, or went: they cannot be told apart from what they say.
        orders: standing orders that name it, and go. One that kept mail from the address keeps nothing from then on.
        operations: entries of the log of operations that name it, and stay with the tombstone.
        pending: ids of messages that are left alone because some of their recipients are not settled, or because
            postprocessors have them.
        rewritten: the database file was rewritten and its write-ahead log emptied, so that not even unused parts of
            them hold anything of what was erased.
        trouble: why that was not done, "" if nobody asked for it or it was.
    """

    address: Address
    applied: bool
    tombstone: str
    messages: int
    sent: int
    recipients: int
    contents: int
    orders: int
    operations: int
    inbound: int = 0
    pending: tuple[str, ...] = ()
    rewritten: bool = False
    trouble: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing of the address is left in the spool's records."""
        return self.applied and not self.pending
