"""What our LMTP transport hands to a real Dovecot comes back to us by its IMAP, octet for octet."""

from collections.abc import Iterator, Sequence

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.outcomes import Delivered, Failed, Outcome
from postroom.receivers.imap import ImapReceiver
from postroom.testing.inlets import TrialSpool
from postroom.testing.samples import SAMPLES
from postroom.transports.base import Outcomes
from postroom.transports.smtp import LmtpTransport
from tests.support.dovecot import PASSWORD, Dovecot


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        yield server


# Dovecot takes any user name, but not one that would leave its folder.
NOBODY = Target(2, Address("smtp", "../etc@example.org"))


def outcomes_of(outcomes: Outcomes) -> list[type[Outcome]]:
    return [type(outcome) for outcome in (outcomes if isinstance(outcomes, Sequence) else [outcomes])]


def test_what_we_deliver_by_lmtp_comes_back_by_imap(dovecot: Dovecot) -> None:
    session = LmtpTransport("127.0.0.1", dovecot.lmtp).open()
    users = ("ann", "bob")
    # One at a time, as Dovecot writes no Delivered-To for several at once; and both at once, at the end.
    targets = tuple(Target(index, Address("smtp", f"{user}@example.org")) for index, user in enumerate(users))
    for number, sample in enumerate(SAMPLES, 1):
        for target in targets:
            outcome = session.send(Delivery(number, "app@example.org", (target,), sample.content))
            assert outcomes_of(outcome) == [Delivered], dovecot.log()
    assert outcomes_of(
        session.send(Delivery(99, "app@example.org", (*targets, NOBODY), SAMPLES[0].content))
    ) == [Delivered, Delivered, Failed]
    session.close()
    for user in users:
        spool = TrialSpool()
        coming = ImapReceiver(
            "127.0.0.1", dovecot.imap, user=user, password=PASSWORD, tls="none", after="delete"
        )
        receiving = coming.open(spool.inlet())
        assert receiving.poll() == len(SAMPLES) + 1
        receiving.close()
        for arrival, sample in zip(spool.arrivals[:-1], SAMPLES, strict=True):
            assert arrival.content.endswith(b"\r\n" + sample.content)
            assert arrival.sender == "app@example.org"
            assert arrival.recipients == (f"{user}@example.org",)
            trace = arrival.content.removesuffix(sample.content)
            assert trace.startswith(b"Return-Path: <app@example.org>\r\n")
            assert b"\r\n\r\n" not in trace, "only trace fields were put in front"
