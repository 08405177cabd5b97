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

from postroom.delivery import Delivery
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Outcome, Relayed, Reply
from postroom.replies import Phase, ReplyTable, smtp_table
from postroom.transports.base import Outcomes
from postroom.transports.smtp_commands import pipelined, stepwise
from postroom.transports.smtp_conversation import (
    Closing,
    Conversation,
    OutOfStep,
    Recipients,
    Stage,
    Transaction,
)
from postroom.transports.smtp_envelope import Envelope, Features, prepare
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.smtp_wire import Lost, Wire, read_reply

__all__ = ["Dialogue", "OutOfStep"]

LAST_WORDS = 5.0
"""Seconds to look for the reason of a server that hung up while we were sending."""

_BUILT_IN = smtp_table()


class Dialogue:
    """The transactions over one connection that is past its EHLO, TLS and AUTH. Not thread-safe.

    Args:
        wire: the connection.
        features: what the server offers.
        timeouts: how long to wait.
        table: what replies mean.
        remote: the server's name, for the record.
        tls: how the connection is secured, for the record.
        pipelining: pipeline if the server offers it.
        lmtp: LMTP: each accepted recipient has its own answer after the content.
        success: the outcome of an accepted message.

    Attributes:
        silent: a pipelined group was not answered at all.
    """

    def __init__(  # noqa: PLR0913 - settings of a connection, by keyword
        self,
        wire: Wire,
        features: Features,
        timeouts: SmtpTimeouts,
        *,
        table: ReplyTable = _BUILT_IN,
        remote: str = "",
        tls: str = "",
        pipelining: bool = True,
        lmtp: bool = False,
        success: type[Relayed | Delivered] = Relayed,
    ) -> None:
        self.silent = False
        self._talk = Conversation(wire, timeouts, table, remote=remote, tls=tls, lmtp=lmtp, success=success)
        self._features = features
        self._pipelining = pipelining and features.pipelining
        self._kept = False

    @property
    def usable(self) -> bool:
        """Whether another delivery may be sent."""
        return self._talk.usable

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
            done = self._transact(delivery, envelope, envelope.recipients)
            outcomes.update(done.settled)
            while done.surplus and self._talk.usable:
                try:
                    done = self._transact(delivery, envelope, done.surplus)
                except (TransportDown, SessionStale, OutOfStep):
                    break  # the first transaction counts; the surplus stays deferred
                outcomes.update(done.settled)
        for position in envelope.reporting:
            outcome = outcomes[position]
            if isinstance(outcome, Relayed):
                outcomes[position] = Relayed(outcome.reply, reports=True)
        if len(outcomes) == 1:
            return outcomes[0]
        return tuple(outcomes[position] for position in range(len(outcomes)))

    def noop(self) -> bool:
        """Return whether the server still answers."""
        talk = self._talk
        talk.wire.patience = talk.timeouts.noop
        try:
            talk.wire.write(b"NOOP\r\n")
            code, _ = read_reply(talk.wire)
        except Lost:
            code = 0
        # What was read ahead answers nothing that we asked.
        talk.usable = talk.usable and code == 250 and not talk.wire.ahead
        return talk.usable

    def quit(self) -> None:
        """Say QUIT if the server listens for commands, and wait ``timeouts.quit`` at most for its answer."""
        talk = self._talk
        if not talk.usable:
            return
        talk.usable = False
        talk.wire.patience = talk.timeouts.quit
        try:
            talk.wire.write(b"QUIT\r\n")
            read_reply(talk.wire)
        except Lost:
            return

    def _transact(self, delivery: Delivery, envelope: Envelope, recipients: Recipients) -> Transaction:
        talk = self._talk
        kept, self._kept = self._kept, True
        talk.stage = Stage.UNANSWERED
        transaction = Transaction(recipients, delivery.targets)
        try:
            if (pipelined if self._pipelining else stepwise)(talk, envelope.mail, transaction):
                self._send_content(envelope.content, transaction)
        except Closing as closing:
            talk.usable = False
            if kept and talk.stage is Stage.UNANSWERED:
                raise SessionStale(str(closing.reply)) from None
            self._settle_closed(closing, transaction)
        except Lost as lost:
            talk.usable = False
            transaction.settle_rest(self._after_loss(lost, kept=kept))
        except TransportDown as down:
            talk.usable = False
            if not transaction.has_final:
                raise
            reply = Reply(down.reason, "4.3.2", None, talk.remote, talk.tls)
            transaction.settle_rest(Deferred(reply, down.retry_after))
        except (OutOfStep, SessionStale):
            talk.usable = False
            raise
        if not transaction.accepted or not talk.usable:
            transaction.surplus.clear()
        return transaction

    def _settle_closed(self, closing: Closing, transaction: Transaction) -> None:
        """Settle what a 421 left open; raise TransportDown where that is all."""
        try:
            outcome = self._talk.outcome_of_closing(closing, transaction)
        except TransportDown as down:
            if not transaction.has_final:
                raise
            reply = closing.reply
            status = reply.status or "4.3.2"
            outcome = Deferred(
                Reply(reply.text, status, reply.code, reply.remote, reply.tls), down.retry_after
            )
        transaction.settle_rest(outcome)

    def _after_loss(self, lost: Lost, *, kept: bool) -> Deferred:
        """Return what a broken conversation means for those recipients that have no answer, or raise."""
        talk = self._talk
        where = f"{lost.why}, at {talk.phase.value}"
        if talk.stage is Stage.UNANSWERED:
            if not lost.timed_out:
                if kept:
                    raise SessionStale(where) from lost
                if self._pipelining:
                    raise OutOfStep(where) from lost
            self.silent = self._pipelining
            raise TransportDown(f"{talk.remote}: {where}") from lost
        if talk.stage is Stage.GROUP:
            raise OutOfStep(where) from lost
        if talk.stage is Stage.IN_DOUBT:
            where += ": it may have been delivered, and the next attempt may be a duplicate"
            return talk.lost(where, in_doubt=True)
        return talk.lost(where)

    def _send_content(self, content: bytes, transaction: Transaction) -> None:
        talk = self._talk
        talk.stage = Stage.CONTENT
        talk.phase = Phase.CONTENT
        talk.wire.patience = talk.timeouts.block
        try:
            talk.wire.write(content)
        except Lost as lost:
            talk.usable = False
            self._settle_by_last_words(transaction, lost)
            return
        talk.stage = Stage.IN_DOUBT
        talk.wire.patience = talk.timeouts.done
        talk.reset_due = False
        if not talk.lmtp:
            transaction.settle_rest(self._content_outcome(transaction))
            return
        for position in transaction.accepted:
            transaction.settled[position] = self._content_outcome(transaction)

    def _content_outcome(self, transaction: Transaction) -> Outcome:
        code, lines = self._talk.read(Phase.CONTENT)
        self._talk.positive(code, Phase.CONTENT)
        return self._talk.outcome(code, lines, Phase.CONTENT, transaction)

    def _settle_by_last_words(self, transaction: Transaction, lost: Lost) -> None:
        """Look for what a server said before it hung up on the content; the final dot was not sent."""
        if lost.timed_out:
            raise lost
        self._talk.wire.patience = LAST_WORDS
        try:
            code, lines = self._talk.read(Phase.CONTENT)
        except Lost:
            raise lost from None
        if code < 400:
            raise lost
        transaction.settle_rest(self._talk.outcome(code, lines, Phase.CONTENT, transaction))
