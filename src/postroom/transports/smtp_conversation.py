"""Where an SMTP or LMTP transaction stands, and the steps that every way of sending it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from postroom.delivery import Target
from postroom.errors import SessionStale
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.replies import Phase, ReplyTable, Verdict, smtp_reply
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.smtp_wire import Lost, Wire, read_reply

__all__ = ["Closing", "Conversation", "OutOfStep", "Recipients", "Stage", "Transaction"]


class OutOfStep(Exception):
    """A pipelined group was not answered as one; nothing was accepted, and the connection is useless now."""


class Closing(Exception):
    """The server said 421."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Stage(IntEnum):
    """How far a transaction got."""

    UNANSWERED = 0
    GROUP = 1
    COMMANDS = 2
    CONTENT = 3
    IN_DOUBT = 4


Recipients = Sequence[tuple[int, bytes]]
"""Positions among the delivery's targets, and RCPT command lines."""


@dataclass(slots=True)
class Transaction:
    """One transaction's progress.

    Attributes:
        recipients: those that it is for.
        targets: the delivery's targets.
        settled: what became of recipients so far, by position.
        accepted: positions that the server accepted.
        surplus: those refused only because there were too many (RFC 5321 section 4.5.3.1.10).
    """

    recipients: Recipients
    targets: Sequence[Target]
    settled: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    accepted: list[int] = field(default_factory=list[int])
    surplus: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    def settle_rest(self, outcome: Outcome) -> None:
        """Give ``outcome`` to all that have none."""
        for position, _ in self.recipients:
            self.settled.setdefault(position, outcome)

    @property
    def has_final(self) -> bool:
        """Whether ``send`` must answer for all, because something became of some."""
        return any(isinstance(outcome, Failed | Relayed | Delivered) for outcome in self.settled.values())

    @property
    def attempts(self) -> int:
        """Attempts made before, of the recipient with the most."""
        return max(self.targets[position].attempts for position, _ in self.recipients)


class Conversation:
    """A connection and where it stands. Not thread-safe.

    Args:
        wire: the connection.
        timeouts: how long to wait.
        table: what replies mean.
        remote: the server's name, for the record.
        tls: how the connection is secured, for the record.
        lmtp: each accepted recipient has its own answer after the content.
        success: the outcome of an accepted message.

    Attributes:
        usable: whether another transaction may be begun.
        stage: how far the present one got.
        phase: the command that is, or was last, waited for.
        reset_due: RSET must come before the next MAIL.
    """

    def __init__(  # noqa: PLR0913 - settings of a connection
        self,
        wire: Wire,
        timeouts: SmtpTimeouts,
        table: ReplyTable,
        *,
        remote: str,
        tls: str,
        lmtp: bool,
        success: type[Relayed | Delivered],
    ) -> None:
        self.wire = wire
        self.timeouts = timeouts
        self.remote = remote
        self.tls = tls
        self.lmtp = lmtp
        self.usable = True
        self.stage = Stage.UNANSWERED
        self.phase = Phase.MAIL
        self.reset_due = False
        self._table = table
        self._success: type[Relayed | Delivered] = success

    def read(self, phase: Phase) -> tuple[int, list[bytes]]:
        """Return the next reply, which answers ``phase``.

        Raises:
            Closing: it is 421.
            Lost: there is none.
        """
        self.phase = phase
        code, lines = read_reply(self.wire)
        if code == 421:
            raise Closing(self._reply(code, lines))
        return code, lines

    def _reply(self, code: int, lines: list[bytes]) -> Reply:
        said = [line[4:].decode("utf-8", "replace") for line in lines]
        return smtp_reply(code, said, self.remote, self.tls)

    def outcome(self, code: int, lines: list[bytes], phase: Phase, transaction: Transaction) -> Outcome:
        """Return what a reply to all recipients means.

        Raises:
            TransportDown: it is about the whole server.
        """
        attempts = 0 if code < 400 else transaction.attempts
        reply = self._reply(code, lines)
        return self._table.outcome(reply, phase, success=self._success, attempts=attempts)

    def outcome_of_closing(self, closing: Closing, transaction: Transaction) -> Outcome:
        """Return what a 421 means for the recipients; almost always it raises TransportDown."""
        return self._table.outcome(closing.reply, self.phase, attempts=transaction.attempts)

    def lost(self, text: str, *, in_doubt: bool = False) -> Deferred:
        """Return the outcome of a conversation that broke."""
        return Deferred(Reply(text, "4.4.2", None, self.remote, self.tls), in_doubt=in_doubt)

    def positive(self, code: int, phase: Phase) -> bool:
        """Return whether ``code`` goes on; raise ``Lost`` when it answers something else."""
        if code == (354 if phase is Phase.DATA else 250):
            return True
        verdict = self._table.verdict(code, "", phase)
        if verdict is Verdict.NONSENSE:
            raise Lost(f"{code} is not an answer to {phase.value}")
        return verdict is Verdict.OK

    def refuse(
        self, transaction: Transaction, recipient: tuple[int, bytes], code: int, lines: list[bytes]
    ) -> None:
        """Take down that the server refused a recipient."""
        reply = self._reply(code, lines)
        attempts = transaction.targets[recipient[0]].attempts
        outcome = self._table.outcome(reply, Phase.RCPT, success=self._success, attempts=attempts)
        transaction.settled[recipient[0]] = outcome
        if code in {452, 552} and isinstance(outcome, Deferred) and outcome.reply.status == "4.5.3":
            transaction.surplus.append(recipient)

    def reset(self) -> None:
        """Send RSET by itself."""
        self.wire.patience = self.timeouts.command
        self.wire.write(b"RSET\r\n")
        self.read_reset()

    def read_reset(self) -> None:
        """Read the answer to RSET.

        Raises:
            SessionStale: it is none, and nothing else was answered.
            OutOfStep: it is none.
        """
        code, _ = self.read(Phase.MAIL)
        self.reset_due = False
        if code == 250:
            return
        if self.stage is Stage.UNANSWERED:
            raise SessionStale(f"{code} to RSET")
        raise OutOfStep(f"{code} to RSET")
