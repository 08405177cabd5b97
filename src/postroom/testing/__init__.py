"""What others need to test their own hosts, transports and receivers.

| | |
|---|---|
| :class:`InMemorySpooler` | a real spooler whose spool is in memory, with faults to order |
| :class:`Outbox` | its transport, which takes everything and fails where it is told to |
| :func:`assert_spooled`, :func:`spooled` | what is in the spool |
| :class:`ManualClock` | time that the test turns |
| :mod:`postroom.testing.plugin` | pytest fixtures of these, which pytest finds by itself |
| :mod:`postroom.testing.transports` | the conformance suite of transports, to inherit (needs pytest) |
| :mod:`postroom.testing.receivers` | the conformance suite of receivers, to inherit (needs pytest) |
| :mod:`postroom.testing.faults` | a TCP proxy that cuts, delays and swallows |
| :mod:`postroom.testing.inlets` | a spool for trying receivers, which fails where it is told to |
| :mod:`postroom.testing.samples` | messages that tend to be damaged on the way |
"""

from postroom.clock import ManualClock
from postroom.testing.asserting import Spooled, assert_nothing_spooled, assert_spooled, spooled
from postroom.testing.outbox import Outbox, Sent
from postroom.testing.spooling import InMemorySpooler

__all__ = [
    "InMemorySpooler",
    "ManualClock",
    "Outbox",
    "Sent",
    "Spooled",
    "assert_nothing_spooled",
    "assert_spooled",
    "spooled",
]
