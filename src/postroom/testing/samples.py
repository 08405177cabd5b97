"""Messages that tend to be damaged on the way."""

from dataclasses import dataclass

__all__ = ["SAMPLES", "Sample"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A content that tends to be damaged.

    Attributes:
        name: what is special about it.
        content: its octets, with CRLF line ends and no line of more than 998 octets.
        eight_bit: it has octets beyond 127.
    """

    name: str
    content: bytes
    eight_bit: bool = False


def _message(body: bytes, content_type: str = "text/plain; charset=utf-8", encoding: str = "8bit") -> bytes:
    lines = (
        "From: app@example.org",
        "To: undisclosed-recipients:;",
        "Subject: conformance",
        "Message-ID: <conformance@example.org>",
        "MIME-Version: 1.0",
        f"Content-Type: {content_type}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii") + body


SAMPLES: tuple[Sample, ...] = (
    Sample("short", _message(b"Hello.\r\n", encoding="7bit")),
    Sample("empty body", _message(b"", encoding="7bit")),
    Sample("one blank line", _message(b"\r\n", encoding="7bit")),
    Sample("blank lines at the end", _message(b"x\r\n\r\n\r\n\r\n", encoding="7bit")),
    Sample("dots", _message(b".\r\n..\r\n.x\r\n\r\n.\r\n...\r\n", encoding="7bit")),
    Sample("dot at the end", _message(b"last\r\n.\r\n", encoding="7bit")),
    Sample("From_ lines", _message(b"From here on\r\n>From there\r\n", encoding="7bit")),
    Sample("non-Latin", _message("Ελληνικά, עברית, 日本語, 🐘\r\n".encode()), eight_bit=True),
    Sample("latin-1", _message(b"Gr\xfc\xdfe\r\n", "text/plain; charset=iso-8859-1"), eight_bit=True),
    Sample("long line", _message(b"x" * 990 + b"\r\n", encoding="7bit")),
    Sample(
        "5 MiB", _message((b"0123456789abcde." * 62 + b"\r\n") * (5 * MEBIBYTE // 994 + 1), encoding="7bit")
    ),
)
