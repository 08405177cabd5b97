"""What the tests of preprocessing share: deliveries, preprocessors made of functions, submissions made storable."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.envelopes import Submission, prepare_envelope
from postroom.errors import UsageError
from postroom.hooks import Preprocessor, Verdict, Work
from postroom.ids import format_id
from postroom.messages import prepare
from postroom.options import MessageOptions
from postroom.stores.base import NewMessage, NewRecipient

NOW = 1_795_000_000.0
KEY = 123_456_789_012_345

CONTENT = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Hello\r\n"
    b"Message-ID: <original@mail.example.org>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nGood morning.\r\n'
)

_numbers = itertools.count(1)


def delivery(
    *addresses: str, content: bytes = CONTENT, eight_bit: bool = False, options: MessageOptions | None = None
) -> Delivery:
    """Return a delivery to these addresses, bob@example.net if there are none."""
    targets = tuple(
        Target(index, parse_address(address))
        for index, address in enumerate(addresses or ("bob@example.net",))
    )
    return Delivery(
        KEY, "ann@example.org", targets, content, NOW, eight_bit=eight_bit, options=options, report="failure"
    )


def work(*addresses: str, content: bytes = CONTENT, eight_bit: bool = False) -> Work:
    """Return the work on such a delivery."""
    made = delivery(*addresses, content=content, eight_bit=eight_bit)
    return Work.of(made, made.targets, content)


def admit(submission: Submission, field_name: str) -> NewMessage:
    """Make a submission storable, as a spooler does."""
    key = KEY + next(_numbers)
    try:
        prepared = prepare(
            submission.message,
            now=NOW,
            message_id_domain="mail.example.org",
            unique=format_id(key),
            max_size=1 << 20,
        )
        envelope = prepare_envelope(submission, prepared, now=NOW, max_recipients=100)
    except UsageError as error:
        raise UsageError(f"{field_name}{error.field}", error.problem, error.remedy) from error
    return NewMessage(
        key, envelope.sender, prepared.content,
        tuple(NewRecipient(parse_address(recipient_of(each)), "memory") for each in envelope.recipients), NOW, NOW,
        idempotency_key=envelope.idempotency_key, digest=envelope.digest,
    )  # fmt: skip


def recipient_of(each: object) -> str:
    """Return an envelope's recipient as text, whether it is an address or something that has one."""
    return str(getattr(each, "address", each))


@dataclass(kw_only=True, eq=False)
class Scripted(Preprocessor):
    """Does what a function says, and remembers what it was shown."""

    name: str = "scripted"
    address_types: Collection[str] = "*"
    does: Callable[[Work], Verdict] = field(default=lambda _: Verdict(), repr=False)
    shown: list[Work] = field(default_factory=list[Work], repr=False)

    def process(self, work: Work) -> Verdict:
        self.shown.append(work)
        return self.does(work)


def tagging(name: str, address_types: Collection[str] = "*", value: str = "yes") -> Scripted:
    """Return a preprocessor that adds a header field of its name in front."""

    def tag(given: Work) -> Verdict:
        return Verdict(content=f"X-{name}: {value}\r\n".encode() + given.content)

    return Scripted(name=name, address_types=address_types, does=tag)
