"""The questions that mail has for the DNS, and how their answers fail, whoever asks them."""

from collections.abc import Callable, Sequence
from typing import Literal

__all__ = ["Lookup", "LookupFailed", "NoSuchDomain", "Question"]

Question = Literal["MX", "A", "AAAA"]

Lookup = Callable[[str, Question], Sequence[str]]
"""Answers a question about a name with the records' text: ("10 mx.example.org.",), ("192.0.2.1",); none: ().

It may block and is called by several threads at once. It raises ``NoSuchDomain``, ``LookupFailed``, or
:class:`~postroom.errors.TransportDown` where the DNS as a whole cannot be asked.
"""


class NoSuchDomain(Exception):
    """The DNS says that there is no such name (NXDOMAIN)."""


class LookupFailed(Exception):
    """There is no answer about this name now: SERVFAIL, no server of the domain answers, or an answer is malformed."""
