"""The two ways to send an envelope: command by command, and pipelined (RFC 2920).

Either returns whether the server waits for the content now; the transaction then knows who was accepted.
"""

from postroom.replies import Phase
from postroom.transports.smtp_conversation import Conversation, OutOfStep, Stage, Transaction
from postroom.transports.smtp_wire import Lost, read_reply

__all__ = ["GROUP", "pipelined", "stepwise"]

GROUP = 200
"""Recipients pipelined together: their replies must fit the socket buffers (RFC 2920 section 3.1)."""

_NOT_HERE = frozenset({500, 502, 503})
"""Unknown command, not implemented, bad sequence: a server that does not follow a pipelined group."""


def stepwise(talk: Conversation, mail: bytes, transaction: Transaction) -> bool:
    """Send the envelope command by command; return whether the server waits for content.

    Raises:
        Closing, Lost, TransportDown, SessionStale, OutOfStep: as :class:`Conversation` has them.
    """
    write, timeouts = talk.wire.write, talk.timeouts
    if talk.reset_due:
        talk.reset()
    talk.phase = Phase.MAIL
    talk.wire.patience = timeouts.mail
    write(mail)
    code, lines = talk.read(Phase.MAIL)
    talk.stage = Stage.COMMANDS
    if not talk.positive(code, Phase.MAIL):
        transaction.settle_rest(talk.outcome(code, lines, Phase.MAIL, transaction))
        return False
    talk.wire.patience = timeouts.rcpt
    talk.reset_due = True
    for position, line in transaction.recipients:
        talk.phase = Phase.RCPT
        write(line)
        code, lines = talk.read(Phase.RCPT)
        if talk.positive(code, Phase.RCPT):
            transaction.accepted.append(position)
        else:
            talk.refuse(transaction, (position, line), code, lines)
    if not transaction.accepted:
        return False
    talk.phase = Phase.DATA
    talk.wire.patience = timeouts.data
    write(b"DATA\r\n")
    code, lines = talk.read(Phase.DATA)
    if talk.positive(code, Phase.DATA):
        return True
    transaction.settle_rest(talk.outcome(code, lines, Phase.DATA, transaction))
    transaction.accepted.clear()
    return False


def pipelined(talk: Conversation, mail: bytes, transaction: Transaction) -> bool:
    """Send the envelope in as few writes as possible; return whether the server waits for content.

    Raises:
        Closing, Lost, TransportDown, SessionStale, OutOfStep: as :class:`Conversation` has them.
    """
    recipients = transaction.recipients
    talk.phase = Phase.MAIL
    talk.wire.patience = talk.timeouts.mail
    last = max(0, len(recipients) - 1) // GROUP * GROUP
    for start in range(0, last + 1, GROUP):
        batch = recipients[start : start + GROUP]
        talk.wire.write(
            b"".join(
                [
                    b"RSET\r\n" if talk.reset_due and not start else b"",
                    mail if not start else b"",
                    *[line for _, line in batch],
                    b"DATA\r\n" if start == last else b"",
                ]
            )
        )
        if not start:
            if talk.reset_due:
                talk.read_reset()
            code, lines = talk.read(Phase.MAIL)
            talk.stage = Stage.GROUP
            if not talk.positive(code, Phase.MAIL):
                outcome = talk.outcome(code, lines, Phase.MAIL, transaction)
                transaction.settle_rest(outcome)
                _skip(talk, len(batch) + (start == last))
                return False
            talk.reset_due = True
            talk.wire.patience = min(talk.timeouts.rcpt, talk.timeouts.stall)
        for recipient in batch:
            code, lines = talk.read(Phase.RCPT)
            if code in _NOT_HERE:
                raise OutOfStep(f"{code} to RCPT after MAIL was accepted")
            if talk.positive(code, Phase.RCPT):
                transaction.accepted.append(recipient[0])
            else:
                talk.refuse(transaction, recipient, code, lines)
    return _read_data(talk, transaction)


def _read_data(talk: Conversation, transaction: Transaction) -> bool:
    """Read the answer to a pipelined DATA; return whether the server waits for content."""
    talk.wire.patience = min(talk.timeouts.data, talk.timeouts.stall)
    code, lines = talk.read(Phase.DATA)
    positive = talk.positive(code, Phase.DATA)
    if talk.wire.ahead:
        # Taken for the answer to the content, it would settle a message that was not accepted.
        raise OutOfStep("more answers than commands")
    if positive and transaction.accepted:
        return True
    if positive:
        _end_nothing(talk)
        return False
    if transaction.accepted:
        if code in _NOT_HERE:
            raise OutOfStep(f"{code} to DATA after RCPT was accepted")
        # It may be the answer to the last RCPT of a server that is one behind: believe it only in step.
        outcome = talk.outcome(code, lines, Phase.DATA, transaction)
        talk.reset()
        transaction.settle_rest(outcome)
        transaction.accepted.clear()
    return False


def _skip(talk: Conversation, replies: int) -> None:
    """Read the answers to the commands that followed a refused MAIL."""
    code = 0
    try:
        for _ in range(replies):
            code, _ = read_reply(talk.wire)
    except Lost:
        talk.usable = False
    if code == 354:
        raise OutOfStep("354 to DATA after MAIL was refused")


def _end_nothing(talk: Conversation) -> None:
    """End the content of a message that has no recipients (RFC 2920 section 3.1)."""
    if talk.lmtp:
        # One answer per recipient (RFC 2033 section 4.2), hence none: nothing to wait for.
        talk.usable = False
        return
    talk.wire.patience = talk.timeouts.data
    try:
        talk.wire.write(b".\r\n")
        read_reply(talk.wire)
    except Lost:
        talk.usable = False
    talk.reset_due = False
