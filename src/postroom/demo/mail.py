"""The messages of the demo: generated, varied, the same ones for the same seed. Pure."""

import random
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from postroom.composing import Attachment, Message
from postroom.messages import AnyMessage

__all__ = ["ID_HEADER", "SENDER", "Specimen", "generate", "kinds"]

ID_HEADER: Final = "X-Postroom-Demo"
SENDER: Final = "shop@demo.example"
KIB: Final = 1024

PEOPLE: Final = ("ann", "bob", "chandra", "dmitri", "elif", "fatima", "gustavo", "hana", "ingrid", "jürgen")
DOMAINS: Final = ("north.example", "south.example", "bücher.example")
HOOKS: Final = ("orders", "billing", "audit")
SCRIPTS: Final = (
    ("Ваш заказ отправлен", "Здравствуйте! Ваш заказ уже в пути и прибудет завтра."),
    ("تم شحن طلبك", "مرحبا، طلبك في الطريق وسيصل غدا إن شاء الله."),
    ("您的订单已发货", "您好 您的订单已经发出 预计明天送达。谢谢惠顾。"),
    ("आपका ऑर्डर भेज दिया गया है", "नमस्ते! आपका ऑर्डर रास्ते में है और कल पहुँच जाएगा।"),
    ("Συγχαρητήρια 🎉", "η παραγγελία σας έφυγε 🚚📦 — ευχαριστούμε! 👩‍💻👍🏽"),
    ("ご注文の品を発送しました", "いつもお世話になっております。商品は明日届く予定です。"),
)
VOCABULARY: Final = (
    "parcel ledger invoice courier window harbour letter stamp queue receipt spool garden winter copper "
    "button bridge paper signal lantern compass ticket journal morning"
)
WORDS: Final = VOCABULARY.split()
WEIGHTS: Final = {"plain": 40, "script": 25, "html": 20, "raw": 12, "large": 3}
"""How many of a hundred messages are of each kind."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """One message to submit.

    Attributes:
        number: its number, which its ``X-Postroom-Demo`` header repeats.
        kind: plain, script, html, raw or large.
        message: in one of the forms that ``submit()`` takes.
        to: its recipients, of one or several transports.
    """

    number: int
    kind: str
    message: AnyMessage
    to: tuple[str, ...]


def kinds(count: int) -> list[str]:
    """Return the kind of each of ``count`` messages, in the proportions of ``WEIGHTS``; each occurs."""
    total = sum(WEIGHTS.values())
    chosen = [kind for kind, weight in WEIGHTS.items() for _ in range(max(1, count * weight // total))]
    return (chosen + ["plain"] * count)[:count]


def generate(count: int, seed: int, http_port: int) -> Iterator[Specimen]:
    """Yield ``count`` messages; ``http_port`` is where the webhooks go."""
    dice = random.Random(seed)  # noqa: S311 - no secret depends on it
    order = kinds(count)
    dice.shuffle(order)
    for number, kind in enumerate(order):
        to = _recipients(dice, kind, http_port)
        yield Specimen(number, kind, _message(dice, number, kind), to)


def _recipients(dice: random.Random, kind: str, http_port: int) -> tuple[str, ...]:
    def mailbox() -> str:
        return f"{dice.choice(PEOPLE)}@{dice.choice(DOMAINS)}"

    def hook() -> str:
        return f"http://127.0.0.1:{http_port}/hooks/{dice.choice(HOOKS)}"

    def folder() -> str:
        return f"maildir:{dice.choice(PEOPLE)}"

    if kind == "large":
        return tuple(dice.choice((mailbox, hook, folder))() for _ in range(1))
    several = dice.random() < 0.3
    makers = dice.choices((mailbox, hook, folder), weights=(5, 3, 3), k=dice.randint(2, 4) if several else 1)
    return tuple(dict.fromkeys(make() for make in makers))


def _message(dice: random.Random, number: int, kind: str) -> AnyMessage:
    headers = {ID_HEADER: str(number)}
    if kind == "script":
        subject, text = dice.choice(SCRIPTS)
        return Message(
            subject=subject, text=f"{text}\n\n№ {number}\n", sender=f"Лавка 店 <{SENDER}>", headers=headers
        )
    if kind == "html":
        text = _prose(dice, 60)
        rows = "".join(
            f"<tr><td>{word}</td><td>{dice.randint(1, 99)}</td></tr>" for word in dice.sample(WORDS, 6)
        )
        return Message(
            subject=f"Statement {number}",
            text=text,
            html=f'<p>{text}</p><table>{rows}</table><img src="cid:logo">',
            attachments=[
                Attachment("statement.csv", ("item,count\r\n" + _prose(dice, 200)).encode()),
                Attachment("Übersicht 概要.bin", dice.randbytes(dice.randint(2, 24) * KIB)),
                Attachment("logo.png", b"\x89PNG\r\n\x1a\n" + dice.randbytes(600), cid="logo"),
            ],
            sender=SENDER,
            headers=headers,
        )
    if kind == "large":
        return _large(dice, number)
    if kind == "raw":
        return _raw(dice, number)
    return Message(
        subject=f"Parcel {number}", text=_prose(dice, dice.randint(20, 250)), sender=SENDER, headers=headers
    )


def _large(dice: random.Random, number: int) -> EmailMessage:
    """Return one of 1 to 2 MiB, built with the standard library as an application would."""
    message = EmailMessage()
    message["From"] = SENDER
    message["Subject"] = f"Catalogue {number}"
    message[ID_HEADER] = str(number)
    message.set_content("The catalogue is attached.\n")
    octets = dice.randbytes(dice.randint(800 * KIB, 1400 * KIB))
    message.add_attachment(octets, maintype="application", subtype="pdf", filename=f"catalogue-{number}.pdf")
    return message


def _raw(dice: random.Random, number: int) -> bytes:
    """Return octets as an old program writes them: LF line ends, an 8-bit body, lines that begin with a dot."""
    lines = [
        _prose(dice, 12),
        ".",
        "..",
        ".hidden",
        "Größe: fünf Stück",
        b64encode(dice.randbytes(48)).decode(),
    ]
    head = f"From: {SENDER}\nSubject: Job {number} done\n{ID_HEADER}: {number}\nMIME-Version: 1.0\n"
    head += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    return (head + "\n".join(lines) + "\n").encode()


def _prose(dice: random.Random, words: int) -> str:
    lines: list[Sequence[str]] = []
    while words > 0:
        lines.append([dice.choice(WORDS) for _ in range(min(10, words))])
        words -= 10
    return "\n".join(" ".join(line) for line in lines)
