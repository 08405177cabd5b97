"""The SMTP and LMTP transaction: MAIL, RCPT, DATA and the content (RFC 5321, RFC 2033, RFC 2920).

A dialogue says for each recipient what became of it, or raises where nothing became of any. What a broken
conversation means depends on how far it got::

    nothing was answered      a kept session: SessionStale; a fresh one: TransportDown
    a pipelined group         OutOfStep: nothing was accepted, so it is tried again command by command
    MAIL was answered         Deferred, 4.4.2
    the final dot was sent    Deferred, 4.4.2, and in doubt: the next attempt may be a duplicate

A 421 at any point is the server's, not the message's: TransportDown, and nobody is charged. Only where other
recipients of the same transaction are final already (refused for good, or delivered by LMTP) must ``send``
answer for all: then those keep their outcome and the others are Deferred.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from postroom.delivery import Delivery
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.replies import Phase, Verdict, smtp_outcome, smtp_reply, smtp_verdict
from postroom.transports.base import Outcomes
from postroom.transports.smtp_envelope import Envelope, Features, prepare
from postroom.transports.smtp_wire import Lost, Wire, read_reply

__all__ = ["Dialogue", "OutOfStep", "SmtpTimeouts"]

GROUP = 200
"""Recipients pipelined together: their replies must fit the socket buffers (RFC 2920 section 3.1)."""

LAST_WORDS = 5.0
"""Seconds to look for the reason of a server that hung up while we were sending."""

_NOT_HERE = frozenset({500, 502, 503})
"""Unknown command, not implemented, bad sequence: a server that does not follow a pipelined group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTimeouts:
    """Seconds to wait for the other side, by phase; the minimums of RFC 5321 section 4.5.3.2 by default.

    Attributes:
        connect: TCP connection and TLS handshake.
        greeting: the server's 220.
        command: EHLO, STARTTLS, AUTH, RSET.
        mail: MAIL.
        rcpt: each RCPT.
        data: DATA, until 354.
        block: each 256 KiB of content, to be taken.
        done: the answer to the content.
        stall: silence within a pipelined group after which the server is taken for one that cannot pipeline;
            the delivery is then tried again without.
        noop: the answer to NOOP, before a session is used again.
        quit: leaving.
    """

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    done: float = 600.0
    stall: float = 60.0
    noop: float = 10.0
    quit: float = 1.0


class OutOfStep(Exception):
    """A pipelined group was not answered as one; nothing was accepted, and the connection is useless now."""


class _Closing(Exception):
    """The server said 421."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _Stage(IntEnum):
    UNANSWERED = 0
    GROUP = 1
    COMMANDS = 2
    CONTENT = 3
    IN_DOUBT = 4


Recipients = Sequence[tuple[int, bytes]]


@dataclass(slots=True)
class _Transaction:
    """One transaction's progress.

    Attributes:
        recipients: positions among the delivery's targets, and RCPT command lines.
        settled: what became of recipients so far, by position.
        accepted: positions that the server accepted.
        surplus: those refused only because there were too many (RFC 5321 section 4.5.3.1.10).
    """

    recipients: Recipients
    settled: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    accepted: list[int] = field(default_factory=list[int])
    surplus: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    def settle_rest(self, outcome: Outcome) -> None:
        for position, _ in self.recipients:
            self.settled.setdefault(position, outcome)

    @property
    def has_final(self) -> bool:
        return any(isinstance(outcome, Failed | Relayed | Delivered) for outcome in self.settled.values())


class Dialogue:
    """The transactions over one connection that is past its EHLO, TLS and AUTH. Not thread-safe.

    Args:
        wire: the connection.
        features: what the server offers.
        timeouts: how long to wait.
        remote: the server's name, for the record.
        pipelining: pipeline if the server offers it.
        lmtp: LMTP: each accepted recipient has its own answer after the content.
        success: the outcome of an accepted message.

    Attributes:
        usable: whether another delivery may be sent.
        silent: a pipelined group was not answered at all.
    """

    def __init__(  # noqa: PLR0913 - settings of a connection, by keyword
        self,
        wire: Wire,
        features: Features,
        timeouts: SmtpTimeouts,
        *,
        remote: str = "",
        pipelining: bool = True,
        lmtp: bool = False,
        success: type[Relayed | Delivered] = Relayed,
    ) -> None:
        self.usable = True
        self.silent = False
        self._wire = wire
        self._features = features
        self._timeouts = timeouts
        self._remote = remote
        self._pipelining = pipelining and features.pipelining
        self._lmtp = lmtp
        self._success: type[Relayed | Delivered] = success
        self._kept = False
        self._reset_due = False
        self._stage = _Stage.UNANSWERED
        self._phase = Phase.MAIL

    def send(self, delivery: Delivery) -> Outcomes:
        """Send one delivery and say what became of each target.

        Recipients that the server refuses as too many are tried again in a further transaction at once.

        Raises:
            TransportDown: the server closes, or refuses us as a whole, or never answered.
            SessionStale: the session was used before and is closed.
            OutOfStep: the server does not pipeline, though it says so; nothing was accepted.
        """
        envelope = prepare(delivery, self._features)
        outcomes: dict[int, Outcome] = dict(envelope.refused)
        if envelope.recipients:
            done = self._transact(envelope, envelope.recipients)
            outcomes.update(done.settled)
            while done.surplus and self.usable:
                try:
                    done = self._transact(envelope, done.surplus)
                except (TransportDown, SessionStale, OutOfStep):
                    break  # the first transaction counts; the surplus stays deferred
                outcomes.update(done.settled)
        if len(outcomes) == 1:
            return outcomes[0]
        return tuple(outcomes[position] for position in range(len(outcomes)))

    def noop(self) -> bool:
        """Return whether the server still answers."""
        self._wire.patience = self._timeouts.noop
        try:
            self._wire.write(b"NOOP\r\n")
            code, _ = read_reply(self._wire)
        except Lost:
            code = 0
        # What was read ahead answers nothing that we asked.
        self.usable = self.usable and code == 250 and not self._wire.ahead
        return self.usable

    def quit(self) -> None:
        """Say QUIT if the server listens for commands, and wait ``timeouts.quit`` at most for its answer."""
        if not self.usable:
            return
        self.usable = False
        self._wire.patience = self._timeouts.quit
        try:
            self._wire.write(b"QUIT\r\n")
            read_reply(self._wire)
        except Lost:
            return

    def _transact(self, envelope: Envelope, recipients: Recipients) -> _Transaction:
        kept, self._kept = self._kept, True
        self._stage = _Stage.UNANSWERED
        transaction = _Transaction(recipients)
        try:
            ready = (self._pipelined if self._pipelining else self._stepwise)(envelope.mail, transaction)
            if ready:
                self._send_content(envelope.content, transaction)
        except _Closing as closing:
            self.usable = False
            if kept and self._stage is _Stage.UNANSWERED:
                raise SessionStale(str(closing.reply)) from None
            if not transaction.has_final:
                raise TransportDown(f"{self._phase.value}: {closing.reply}") from None
            reply = closing.reply
            transaction.settle_rest(
                Deferred(Reply(reply.text, reply.status or "4.3.2", reply.code, reply.remote))
            )
        except Lost as lost:
            self.usable = False
            transaction.settle_rest(self._after_loss(lost, kept=kept))
        except (TransportDown, OutOfStep, SessionStale):
            self.usable = False
            raise
        if not transaction.accepted or not self.usable:
            transaction.surplus.clear()
        return transaction

    def _after_loss(self, lost: Lost, *, kept: bool) -> Deferred:
        """Return what a broken conversation means for those recipients that have no answer, or raise."""
        where = f"{lost.why}, at {self._phase.value}"
        if self._stage is _Stage.UNANSWERED:
            if not lost.timed_out:
                if kept:
                    raise SessionStale(where) from lost
                if self._pipelining:
                    raise OutOfStep(where) from lost
            self.silent = self._pipelining
            raise TransportDown(f"{self._remote}: {where}") from lost
        if self._stage is _Stage.GROUP:
            raise OutOfStep(where) from lost
        if self._stage is _Stage.IN_DOUBT:
            where += ": it may have been delivered, and the next attempt may be a duplicate"
            return Deferred(Reply(where, "4.4.2", None, self._remote), in_doubt=True)
        return Deferred(Reply(where, "4.4.2", None, self._remote))

    def _read(self, phase: Phase) -> tuple[int, list[bytes]]:
        self._phase = phase
        code, lines = read_reply(self._wire)
        if code == 421:
            raise _Closing(self._reply(code, lines))
        return code, lines

    def _reply(self, code: int, lines: list[bytes]) -> Reply:
        return smtp_reply(code, [line[4:].decode("utf-8", "replace") for line in lines], self._remote)

    def _outcome(self, code: int, lines: list[bytes], phase: Phase) -> Outcome:
        return smtp_outcome(self._reply(code, lines), phase, self._success)

    def _stepwise(self, mail: bytes, transaction: _Transaction) -> bool:
        """Send the envelope command by command; return whether the server waits for content."""
        write, timeouts = self._wire.write, self._timeouts
        if self._reset_due:
            self._reset()
        self._phase = Phase.MAIL
        self._wire.patience = timeouts.mail
        write(mail)
        code, lines = self._read(Phase.MAIL)
        self._stage = _Stage.COMMANDS
        if not self._positive(code, Phase.MAIL):
            transaction.settle_rest(self._outcome(code, lines, Phase.MAIL))
            return False
        self._wire.patience = timeouts.rcpt
        self._reset_due = True
        for position, line in transaction.recipients:
            self._phase = Phase.RCPT
            write(line)
            code, lines = self._read(Phase.RCPT)
            if self._positive(code, Phase.RCPT):
                transaction.accepted.append(position)
            else:
                self._refuse(transaction, (position, line), code, lines)
        if not transaction.accepted:
            return False
        self._phase = Phase.DATA
        self._wire.patience = timeouts.data
        write(b"DATA\r\n")
        code, lines = self._read(Phase.DATA)
        if self._positive(code, Phase.DATA):
            return True
        transaction.settle_rest(self._outcome(code, lines, Phase.DATA))
        transaction.accepted.clear()
        return False

    def _positive(self, code: int, phase: Phase) -> bool:
        """Return whether ``code`` goes on; raise ``Lost`` when it answers something else."""
        if code == (354 if phase is Phase.DATA else 250):
            return True
        verdict = smtp_verdict(code, "", phase)
        if verdict is Verdict.NONSENSE:
            raise Lost(f"{code} is not an answer to {phase.value}")
        return verdict is Verdict.OK

    def _pipelined(self, mail: bytes, transaction: _Transaction) -> bool:
        """Send the envelope in as few writes as possible; return whether the server waits for content."""
        recipients = transaction.recipients
        self._phase = Phase.MAIL
        self._wire.patience = self._timeouts.mail
        last = max(0, len(recipients) - 1) // GROUP * GROUP
        for start in range(0, last + 1, GROUP):
            batch = recipients[start : start + GROUP]
            self._wire.write(
                b"".join(
                    [
                        b"RSET\r\n" if self._reset_due and not start else b"",
                        mail if not start else b"",
                        *[line for _, line in batch],
                        b"DATA\r\n" if start == last else b"",
                    ]
                )
            )
            if not start:
                if self._reset_due:
                    self._read_reset()
                code, lines = self._read(Phase.MAIL)
                self._stage = _Stage.GROUP
                if not self._positive(code, Phase.MAIL):
                    outcome = self._outcome(code, lines, Phase.MAIL)
                    transaction.settle_rest(outcome)
                    self._skip(len(batch) + (start == last))
                    return False
                self._reset_due = True
                self._wire.patience = min(self._timeouts.rcpt, self._timeouts.stall)
            for recipient in batch:
                code, lines = self._read(Phase.RCPT)
                if code in _NOT_HERE:
                    raise OutOfStep(f"{code} to RCPT after MAIL was accepted")
                if self._positive(code, Phase.RCPT):
                    transaction.accepted.append(recipient[0])
                else:
                    self._refuse(transaction, recipient, code, lines)
        return self._read_data(transaction)

    def _read_data(self, transaction: _Transaction) -> bool:
        """Read the answer to a pipelined DATA; return whether the server waits for content."""
        self._wire.patience = min(self._timeouts.data, self._timeouts.stall)
        code, lines = self._read(Phase.DATA)
        positive = self._positive(code, Phase.DATA)
        if self._wire.ahead:
            # Taken for the answer to the content, it would settle a message that was not accepted.
            raise OutOfStep("more answers than commands")
        if positive and transaction.accepted:
            return True
        if positive:
            self._end_nothing()
            return False
        if transaction.accepted:
            if code in _NOT_HERE:
                raise OutOfStep(f"{code} to DATA after RCPT was accepted")
            # It may be the answer to the last RCPT of a server that is one behind: believe it only in step.
            outcome = self._outcome(code, lines, Phase.DATA)
            self._reset()
            transaction.settle_rest(outcome)
            transaction.accepted.clear()
        return False

    def _skip(self, replies: int) -> None:
        """Read the answers to the commands that followed a refused MAIL."""
        code = 0
        try:
            for _ in range(replies):
                code, _ = read_reply(self._wire)
        except Lost:
            self.usable = False
        if code == 354:
            raise OutOfStep("354 to DATA after MAIL was refused")

    def _end_nothing(self) -> None:
        """End the content of a message that has no recipients (RFC 2920 section 3.1)."""
        if self._lmtp:
            self.usable = (
                False  # one answer per recipient (RFC 2033 section 4.2), hence none: nothing to wait for
            )
            return
        self._wire.patience = self._timeouts.data
        try:
            self._wire.write(b".\r\n")
            read_reply(self._wire)
        except Lost:
            self.usable = False
        self._reset_due = False

    def _reset(self) -> None:
        """Send RSET by itself."""
        self._wire.patience = self._timeouts.command
        self._wire.write(b"RSET\r\n")
        self._read_reset()

    def _read_reset(self) -> None:
        code, _ = self._read(Phase.MAIL)
        self._reset_due = False
        if code == 250:
            return
        if self._stage is _Stage.UNANSWERED:
            raise SessionStale(f"{code} to RSET")
        raise OutOfStep(f"{code} to RSET")

    def _refuse(
        self, transaction: _Transaction, recipient: tuple[int, bytes], code: int, lines: list[bytes]
    ) -> None:
        outcome = self._outcome(code, lines, Phase.RCPT)
        transaction.settled[recipient[0]] = outcome
        if code in {452, 552} and isinstance(outcome, Deferred) and outcome.reply.status == "4.5.3":
            transaction.surplus.append(recipient)

    def _send_content(self, content: bytes, transaction: _Transaction) -> None:
        self._stage = _Stage.CONTENT
        self._phase = Phase.CONTENT
        self._wire.patience = self._timeouts.block
        try:
            self._wire.write(content)
        except Lost as lost:
            self.usable = False
            self._settle_by_last_words(transaction, lost)
            return
        self._stage = _Stage.IN_DOUBT
        self._wire.patience = self._timeouts.done
        self._reset_due = False
        if not self._lmtp:
            transaction.settle_rest(self._content_outcome())
            return
        for position in transaction.accepted:
            transaction.settled[position] = self._content_outcome()

    def _content_outcome(self) -> Outcome:
        code, lines = self._read(Phase.CONTENT)
        self._positive(code, Phase.CONTENT)
        return self._outcome(code, lines, Phase.CONTENT)

    def _settle_by_last_words(self, transaction: _Transaction, lost: Lost) -> None:
        """Look for what a server said before it hung up on the content; the final dot was not sent."""
        if lost.timed_out:
            raise lost
        self._wire.patience = LAST_WORDS
        try:
            code, lines = self._read(Phase.CONTENT)
        except Lost:
            raise lost from None
        if code < 400:
            raise lost
        transaction.settle_rest(self._outcome(code, lines, Phase.CONTENT))
