"""The part of the spooler's surface that operators use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from postroom.bulk import BulkResult, Preview, Progress
from postroom.envelope_fields import When
from postroom.flushing import Flushed, flush
from postroom.operations import BATCH, SAMPLE
from postroom.receipts import Receipt, receipt_of
from postroom.resending import resend
from postroom.running import Running
from postroom.selections import Selection
from postroom.settings import Settings
from postroom.status import MessageStatus
from postroom.stores.base import Action, Control, Operation, Order
from postroom.stores.changing import WITH_PENDING

__all__ = ["OperatorSurface"]


class OperatorSurface(ABC):
    """What operators do with messages, transports and destinations; :class:`postroom.Spooler` is one.

    Every action is on the record: in the history of each recipient, with ``operator`` and ``reason`` where they are
    given, and bulk actions in the log of operations too. Thread-safe.
    """

    settings: Settings

    @abstractmethod
    def _engine(self) -> Running:
        """Return what runs."""

    @abstractmethod
    def wait(self, message_id: str, timeout: float | None = None) -> MessageStatus:
        """Wait until every recipient of a message is settled."""

    # One message

    def hold(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Keep queued recipients from being sent; returns the numbers of those that were held.

        Recipients that another process has in its memory are changed by that process, which is waited for (about its
        ``sync_interval``).

        Args:
            message_id: the message.
            recipients: numbers of the recipients; None for all.
            operator: who does it, for the record.
            reason: why, for the record.

        Raises:
            InTransit: none could be held because they are being sent.
            NotQueued: all are settled.
            UnknownMessage: there is none with this id.
            SpoolUnavailable: the store did not answer; the text says whether it may have been done.
        """
        return self.act(Action("hold", "", operator, reason), message_id, recipients)

    def release(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Let held recipients go; see :meth:`hold`."""
        return self.act(Action("release", "", operator, reason), message_id, recipients)

    def cancel(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Recall recipients that were not sent yet (MAPI AbortSubmit), without a report; see :meth:`hold`."""
        return self.act(Action("cancel", "", operator, reason), message_id, recipients)

    def retry(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Make queued recipients due at once; see :meth:`hold`."""
        return self.act(Action("retry", "", operator, reason), message_id, recipients)

    def fail(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        text: str = "",
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Return recipients to the sender as undeliverable, with a report; see :meth:`hold`.

        Args:
            message_id: the message.
            recipients: numbers of the recipients; None for all.
            text: what the report says; by default that an operator refused it, and the reason.
            operator: who does it, for the record.
            reason: why, for the record.
        """
        return self.act(Action("fail", text, operator, reason), message_id, recipients)

    def expire(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Give recipients up as if their time had passed, with a report; see :meth:`hold`."""
        return self.act(Action("expire", "", operator, reason), message_id, recipients)

    def reroute(
        self,
        message_id: str,
        transport: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Give queued and held recipients to another transport, whatever the routes say; see :meth:`hold`.

        It goes there as it is: what waits to be preprocessed is not preprocessed any more. Attempts count from there.

        Raises:
            UsageError: there is no such transport, here or in another process on the spool.
        """
        return self.act(Action("reroute", transport, operator, reason), message_id, recipients)

    def redirect(
        self,
        message_id: str,
        address: str,
        recipients: Collection[int] | None = None,
        *,
        operator: str = "",
        reason: str = "",
    ) -> tuple[int, ...]:
        """Change the address of queued and held recipients; see :meth:`hold`.

        The first address stays on the record (``options.original``), and reports name it. A recipient that would get a
        second copy, because another recipient of the message goes to the same address, is cancelled.

        Args:
            message_id: the message.
            address: where they go; ``*@example.org`` keeps what stands before the @.
            recipients: numbers of the recipients; None for all.
            operator: who does it, for the record.
            reason: why, for the record.

        Raises:
            InvalidAddress: ``address`` is none.
        """
        return self.act(Action("redirect", address, operator, reason), message_id, recipients)

    def delete(self, message_id: str, *, pending: bool = False, operator: str = "", reason: str = "") -> None:
        """Forget a settled message with all that is known of it; the ledger goes on counting it.

        Args:
            message_id: the message.
            pending: first cancel what is not settled yet.
            operator: who does it.
            reason: why.

        Raises:
            StateError: recipients are not settled, or are being sent.
            UnknownMessage: there is none with this id.
        """
        self.act(Action("delete", WITH_PENDING if pending else "", operator, reason), message_id, None)

    def resend(
        self,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        resent_from: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Submit a message again, to those only whom it did not reach; returns the new message's receipt.

        Its To and Cc stay as they were, so that readers see the original recipients; a block of Resent fields before
        them tells that it was sent again (RFC 5322 section 3.6.6). ``options.resend_of`` of the new message's record
        names the old one.

        Args:
            message_id: the message; its octets must still be there (``settings.keep_content``).
            recipients: numbers of recipients that failed, expired or were cancelled; None for all that failed or
                expired.
            resent_from: the mailbox of who sends it again; by default the envelope sender, or the author.
            idempotency_key: a second resend with the same key gets the first one's receipt.
            timeout: as for ``submit``.

        Raises:
            NotQueued: nobody failed.
            StateError: its octets are gone.
            UsageError: a recipient named got the message, or may still get it.
            UnknownMessage: there is none with this id.
        """
        engine = self._engine()
        accepted = resend(
            engine.context,
            engine.submitter,
            engine.view.record(message_id),
            recipients,
            resent_from=resent_from,
            idempotency_key=idempotency_key,
            timeout=self.settings.submit_timeout if timeout is None else timeout,
        )
        return receipt_of(accepted, self.wait)

    def act(
        self, action: Action, message_id: str, recipients: Collection[int] | None = None
    ) -> tuple[int, ...]:
        """Do what one of the methods above does, given as a value."""
        return self._engine().operations.act(action, message_id, recipients)

    # Many

    def select(self, selection: Selection, *, action: Control | None = None, sample: int = SAMPLE) -> Preview:
        """Return how many recipients a selection means now, and the first of them: the preview of a bulk action.

        Args:
            selection: which; without states the pending ones, or those to which ``action`` applies.
            action: what is going to be done with them.
            sample: how many to show.
        """
        wanted = None if action is None else Action(action)
        return self._engine().operations.select(selection, action=wanted, sample=sample)

    def preview(self, action: Action, selection: Selection, *, sample: int = SAMPLE) -> Preview:
        """Return what :meth:`apply` would look at, its argument checked and taken into account.

        Raises:
            UsageError: the argument is missing or cannot be used.
        """
        operations = self._engine().operations
        operations.check(action)
        return operations.select(selection, action=action, sample=sample)

    def apply(  # noqa: PLR0913 - by keyword
        self,
        action: Control,
        selection: Selection,
        *,
        operator: str = "",
        reason: str = "",
        argument: str = "",
        batch: int = BATCH,
        progress: Progress | None = None,
    ) -> BulkResult:
        """Do something with all recipients that a selection means, in transactions of ``batch`` recipients.

        It takes what was submitted before it began. When it is interrupted, what was done stays done, and it may be
        repeated: it then does the rest.

        Args:
            action: hold, release, cancel, retry, fail, expire, reroute, redirect or delete.
            selection: which; without states those to which the action applies.
            operator: who does it, for the record.
            reason: why, for the record.
            argument: of "reroute" the transport, of "redirect" the address, of "fail" the text of the report, of
                "delete" "pending" to cancel first what is not settled.
            batch: recipients changed in one transaction; submitters wait for one at most.
            progress: called after each transaction.

        Raises:
            UsageError: the argument is missing or cannot be used; nothing was done.
            SpoolUnavailable: the store did not answer.
        """
        wanted = Action(action, argument, operator, reason)
        return self._engine().operations.apply(wanted, selection, batch=batch, progress=progress)

    def operations(self, limit: int = 100) -> Sequence[Operation]:
        """Return the log of bulk actions, the latest first."""
        return self._engine().operations.operations(limit)

    def flush(  # noqa: PLR0913 - by keyword
        self,
        transport: str | None = None,
        destination: str | None = None,
        *,
        wait: bool = False,
        timeout: float | None = None,
        progress: Callable[[Flushed], object] | None = None,
        operator: str = "",
        reason: str = "",
    ) -> Flushed:
        """Make everything that waits for a later time due now, and try at once what is parked (MAPI FlushQueues).

        What is held stays held, and what an order pauses stays paused.

        Args:
            transport: only what this transport has; None for all.
            destination: only what goes to this domain or host (or glob); None for all.
            wait: wait until each recipient was tried once.
            timeout: seconds to wait at most; None without limit: what is paused or parked is waited for too.
            progress: called with how far it has come, also without ``wait`` once.
            operator: who does it, for the record.
            reason: why, for the record.

        Raises:
            UsageError: there is no such transport.
        """
        engine = self._engine()
        return flush(
            engine.context, engine.operations, lambda: engine.alive, transport=transport, destination=destination,
            wait=wait, timeout=timeout, progress=progress, operator=operator, reason=reason,
        )  # fmt: skip

    # Standing orders

    def order(  # noqa: PLR0913 - by keyword
        self,
        action: str,
        selection: Selection,
        *,
        expires: When | None = None,
        reason: str = "",
        operator: str = "",
        argument: str = "",
        also_waiting: bool = True,
        progress: Progress | None = None,
    ) -> Order:
        """Give a standing order: it concerns what arrives from now on, and what waits already.

        It is in the spool: a restart does not forget it, and other processes heed it within their ``sync_interval``.
        When several concern a recipient, the first given decides.

        Args:
            action: hold, fail, cancel, reroute or redirect; or pause, for transports and destinations.
            selection: what it concerns: transport, destination, address, address_type, sender, tenant, subject.
            expires: until when: seconds since the epoch, an aware datetime, or a timedelta from now; None until it is
                dropped.
            reason: why.
            operator: who gives it.
            argument: as for :meth:`apply`.
            also_waiting: act on what waits already too.
            progress: of that.

        Raises:
            UsageError: it makes no sense; nothing was done.
        """
        return self._engine().order_book.give(
            action, selection, expires=expires, reason=reason, operator=operator, argument=argument,
            also_waiting=also_waiting, progress=progress,
        )  # fmt: skip

    def orders(self) -> tuple[Order, ...]:
        """Return the standing orders in force, the first given first."""
        return self._engine().order_book.orders()

    def drop_order(self, number: int) -> Order:
        """Drop a standing order and return it; what it has done stays done.

        Raises:
            UsageError: there is none with this number.
        """
        return self._engine().order_book.drop(number)

    def pause_transport(
        self, name: str, *, expires: When | None = None, reason: str = "", operator: str = ""
    ) -> Order:
        """Keep a transport from beginning anything new, in all processes on the spool, until it is resumed.

        Raises:
            UsageError: there is no such transport.
        """
        return self._engine().order_book.pause(
            transport=name, expires=expires, reason=reason, operator=operator
        )

    def resume_transport(self, name: str) -> bool:
        """Let a paused transport go on; returns whether it was paused by name."""
        return self._engine().order_book.resume(transport=name) > 0

    def pause_destination(
        self,
        destination: str,
        transport: str | None = None,
        *,
        expires: When | None = None,
        reason: str = "",
        operator: str = "",
    ) -> Order:
        """Keep a domain or host (or a glob over them) from being tried, by one transport or by all."""
        return self._engine().order_book.pause(
            transport=transport, destination=destination, expires=expires, reason=reason, operator=operator
        )

    def resume_destination(self, destination: str, transport: str | None = None) -> bool:
        """Let a paused destination go on; returns whether it was paused in these words."""
        return self._engine().order_book.resume(transport=transport, destination=destination) > 0

    def offline(self, *, expires: When | None = None, reason: str = "", operator: str = "") -> Order:
        """Pause everything, in all processes on the spool: messages are accepted and kept (MAPI's offline state)."""
        return self._engine().order_book.pause(expires=expires, reason=reason, operator=operator)

    def online(self) -> bool:
        """End the offline state; returns whether there was one. Transports paused by name stay paused."""
        return self._engine().order_book.resume() > 0
