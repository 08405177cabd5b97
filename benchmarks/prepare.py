"""What preparing a message and its envelope costs, in microseconds: submit() up to the store."""

import argparse
import timeit
from collections.abc import Callable
from email.message import EmailMessage
from functools import partial

from postroom.envelopes import Submission, prepare_envelope
from postroom.messages import AnyMessage, Message, prepare

LINE = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eius\n"
HEAD = (
    "Received: from app.example.org (app.example.org [192.0.2.1]) by mail.example.org\n"
    " with ESMTP id 4cXk2r for <bob@example.org>; Tue, 14 Nov 2023 22:13:20 +0000\n"
    "From: Ann Other <ann@example.org>\nTo: Bob <bob@example.org>\nSubject: Your order 12345\n"
    "Date: Tue, 14 Nov 2023 22:13:20 +0000\nMessage-ID: <abc@example.org>\nMIME-Version: 1.0\n"
    'Content-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 7bit\n\n'
)


def inputs(size: int) -> dict[str, AnyMessage]:
    """Return one message of about ``size`` octets in each form that is accepted."""
    text = LINE * max(1, (size - len(HEAD)) // len(LINE))
    email = EmailMessage()
    email["From"] = "Ann Other <ann@example.org>"
    email["To"] = "Bob <bob@example.org>"
    email["Subject"] = "Your order 12345"
    email.set_content(text)
    return {
        "bytes": (HEAD + text).replace("\n", "\r\n").encode(),
        "bytes with LF": (HEAD + text).encode(),
        "EmailMessage": email,
        "Message": Message(
            subject="Your order 12345",
            text=text,
            sender="Ann Other <ann@example.org>",
            to="Bob <bob@example.org>",
        ),
    }


def microseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least and the median time of one call over ``repeats`` runs of a few milliseconds each."""
    timer = timeit.Timer(call)
    number = max(1, int(0.003 / min(timer.repeat(5, 1))))
    runs = sorted(run / number * 1e6 for run in timer.repeat(repeats, number))
    return runs[0], runs[len(runs) // 2]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="octets of the message (2048)")
    parser.add_argument("--repeats", type=int, default=50, help="runs per row (50)")
    options = parser.parse_args()

    given = inputs(options.size)
    call = partial(prepare, now=1.7e9, message_id_domain="spool.example", unique="u1", max_size=1 << 30)
    rows: dict[str, Callable[[], object]] = {
        f"prepare({name})": partial(call, message) for name, message in given.items()
    }
    ready = call(given["bytes"])
    for name, submission in {
        "one recipient": Submission(message=b"", sender="app@example.org", to=["ann@example.org"]),
        "100 recipients": Submission(
            message=b"", sender="app@example.org", to=[f"u{number}@example.org" for number in range(100)]
        ),
        "from the header": Submission(message=b""),
        "with a key": Submission(
            message=b"", sender="app@example.org", to=["ann@example.org"], idempotency_key="k"
        ),
    }.items():
        rows[f"prepare_envelope({name})"] = partial(
            prepare_envelope, submission, ready, now=1.7e9, max_recipients=1000
        )
    print(f"{'message of ' + str(ready.size) + ' octets':36} {'least µs':>10} {'median µs':>10}")
    for name, row in rows.items():
        least, median = microseconds(row, options.repeats)
        print(f"{name:36} {least:10.1f} {median:10.1f}")


if __name__ == "__main__":
    main()
