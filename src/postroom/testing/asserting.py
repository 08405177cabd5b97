"""Asserting what was spooled, with failures that show what there is instead."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from fnmatch import fnmatchcase

from postroom.addresses import Address, parse_address
from postroom.errors import UsageError
from postroom.ids import format_id
from postroom.inbound.mailstore_parsing import parse_message, plain_text
from postroom.recipients import State
from postroom.selections import Selection
from postroom.spooler import Spooler
from postroom.stores.base import MessageRecord, Reader

__all__ = ["Spooled", "assert_nothing_spooled", "assert_spooled", "spooled"]

PAGE = 500


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message in the spool, whatever became of it.

    Attributes:
        id: as in ``receipt.id``.
        sender: envelope sender.
        to: the recipients' addresses.
        states: where each of them stands.
        subject: of its header, decoded.
        content: its octets; None where the spool has dropped them (``keep_content``).
    """

    id: str
    sender: str
    to: tuple[Address, ...]
    states: tuple[State, ...]
    subject: str
    content: bytes | None

    @property
    def message(self) -> EmailMessage:
        """The content as a new object.

        Raises:
            UsageError: the spool has dropped it.
        """
        if self.content is None:
            raise UsageError(
                "settings.keep_content", "the spool has dropped the content", "test with keep_content above 0"
            )
        return message_from_bytes(self.content, policy=default)

    @property
    def text(self) -> str:
        """What a reader would see of it, as plain text."""
        return "" if self.content is None else plain_text(parse_message(self.content))

    def __str__(self) -> str:
        to = ", ".join(
            f"{address} ({state.label})" for address, state in zip(self.to, self.states, strict=True)
        )
        return f"{self.id} from {self.sender or '<>'} to {to}: {self.subject!r}"


def spooled(spooler: Spooler) -> list[Spooled]:
    """Return every message in the spool in the order of submission, from whatever state it is in.

    Raises:
        NotRunning: the spooler is not running.
    """
    running = spooler.snapshot_source()
    if running is None:
        spooler.receivers()  # raises what there is to say
        return []
    reader = running.context.reader
    return [_spooled(reader, record) for record in _records(reader, running.context.clock.time())]


def _records(reader: Reader, now: float) -> Iterator[MessageRecord]:
    after: tuple[int, int] | None = None
    last = -1
    while places := reader.selected(Selection(everything=True), now=now, after=after, limit=PAGE):
        for key, _ in places:
            if key != last and (record := reader.message(key)) is not None:
                yield record
            last = key
        after = places[-1]


def _spooled(reader: Reader, record: MessageRecord) -> Spooled:
    return Spooled(
        format_id(record.key),
        record.sender,
        tuple(recipient.address for recipient in record.recipients),
        tuple(recipient.state for recipient in record.recipients),
        record.subject,
        reader.content(record.key),
    )


def assert_spooled(  # noqa: PLR0913 - by keyword
    spooler: Spooler,
    *,
    to: str | Collection[str] | None = None,
    sender: str | None = None,
    subject: str | None = None,
    text: str | None = None,
    header: dict[str, str] | None = None,
    state: State | None = None,
    count: int = 1,
) -> list[Spooled]:
    """Assert that exactly ``count`` messages are in the spool that fit all that is said, and return them.

    Args:
        spooler: running.
        to: a recipient, or several of which each must be one; globs over "type:value", or over the value alone.
        sender: envelope sender, "" for the null reverse-path; a glob.
        subject: a glob.
        text: a part of what a reader would see.
        header: globs by field name.
        state: every recipient of ``to``, or all without it, stand there.
        count: how many; 0 asserts that there is none.

    Raises:
        AssertionError: there are more or fewer; shows what is in the spool.
        UsageError: content is asked for that the spool has dropped.
    """
    wanted = [to] if isinstance(to, str) else list(to or ())
    everything = spooled(spooler)
    found = [
        one
        for one in everything
        if (sender is None or fnmatchcase(one.sender, sender))
        and (subject is None or fnmatchcase(one.subject, subject))
        and _fits_recipients(one, wanted, state)
        and (text is None or text in one.text)
        and all(_fits_header(one, name, glob) for name, glob in (header or {}).items())
    ]
    if len(found) != count:
        asked = {
            "to": to, "sender": sender, "subject": subject, "text": text, "header": header,
            "state": None if state is None else state.label,
        }  # fmt: skip
        said = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
        listed = "\n".join(f"  {one}" for one in everything) or "  (nothing)"
        raise AssertionError(
            f"{len(found)} messages are spooled with {said or 'anything'}, not {count}; there are:\n{listed}"
        )
    return found


def assert_nothing_spooled(spooler: Spooler) -> None:
    """Assert that the spool has no messages.

    Raises:
        AssertionError: it has; shows them.
    """
    assert_spooled(spooler, count=0)


def _fits_recipients(one: Spooled, wanted: Collection[str], state: State | None) -> bool:
    pairs = list(zip(one.to, one.states, strict=True))
    if not wanted:
        return state is None or all(each is state for each in one.states)
    return all(
        any(_is_at(address, glob) and (state is None or where is state) for address, where in pairs)
        for glob in wanted
    )


def _is_at(address: Address, glob: str) -> bool:
    names = {str(address), f"{address.type}:{address.value}", address.value}
    if any(fnmatchcase(name, glob) for name in names):
        return True
    try:
        return parse_address(glob) == address
    except UsageError:
        return False


def _fits_header(one: Spooled, name: str, glob: str) -> bool:
    return any(fnmatchcase(str(value), glob) for value in one.message.get_all(name, []))
