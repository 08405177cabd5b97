"""What operators do: with one message, and with all that a selection means.

A bulk action works through its selection page by page, in the order of submission, behind the last recipient that it
has seen: what changes meanwhile neither stops it nor is done twice. When it is interrupted it may be repeated, since
what was done already is left alone. Each page is one transaction, so that submitters never wait for more than that.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from postroom.actors.context import Context
from postroom.addresses import Address
from postroom.bulk import BulkResult, Preview, Progress, narrowed
from postroom.errors import InTransit, NotQueued, StateError, UnknownAddressType, UsageError
from postroom.ids import parse_id
from postroom.operating import log_operation, perform
from postroom.orders import check_argument
from postroom.redirecting import new_address
from postroom.selections import Selection
from postroom.status import QueueEntry, queue_entry
from postroom.stores.base import Action, Controlled, MessageRecord
from postroom.stores.base import Operation as LoggedOperation
from postroom.stores.changing import WITH_PENDING
from postroom.viewing import SpoolView

__all__ = ["BATCH", "SAMPLE", "Operations"]

BATCH: Final = 200
"""Recipients changed in one transaction."""

SAMPLE: Final = 10
"""Recipients shown in a preview."""

_ANY_MAILBOX: Final = Address("smtp", "anybody@example.org")

LOOK_SECONDS: Final = 0.05
"""Pause between looks for what another process was asked to do."""


class Operations:
    """What operators do. Thread-safe.

    Args:
        context: what the actors share.
        view: for looking.
        running: whether the spooler still runs.
    """

    def __init__(self, context: Context, view: SpoolView, running: Callable[[], bool]) -> None:
        self._context = context
        self._view = view
        self._running = running

    # One message

    def act(
        self,
        action: Action,
        message_id: str,
        recipients: Collection[int] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """Act on recipients of one message; returns the numbers of those that were changed.

        What another process has in its memory is changed by that process within its ``sync_interval``, which is waited
        for.

        Args:
            action: what is to be done, by whom and why.
            message_id: the message.
            recipients: numbers of the recipients; None for all.
            timeout: seconds; by default ``settings.submit_timeout``.

        Raises:
            InTransit: none could be changed because they are being sent.
            NotQueued: all are settled.
            StateError: a message that is not settled cannot be deleted.
            UnknownMessage: there is none with this id.
            UsageError: the action's argument cannot be used.
            SpoolUnavailable: the store did not answer; the text says whether the action may have been done.
        """
        self.check(action)
        key = parse_id(message_id)
        began = self._context.clock.time()
        subject = (key, None if recipients is None else frozenset(recipients))
        (result,) = self._perform(action, [subject], timeout)
        changed = result.changed
        if result.requested:
            changed = tuple(sorted({*changed, *self._await_others(key, result.requested, began)}))
        if action.kind == "delete":
            self._check_deleted(message_id, result)
        elif not changed:
            if result.requested and not result.in_transit:
                raise InTransit(
                    f"another process has message {message_id} in its memory and has not answered yet; it was asked, "
                    f"and may still {action.kind} it"
                )
            if result.in_transit:
                raise InTransit(f"a courier is sending message {message_id} at this moment; try again")
            if result.final:
                raise NotQueued(f"message {message_id} is settled; there is nothing to {action.kind}")
            self._view.record(message_id)
        return changed

    def _check_deleted(self, message_id: str, result: Controlled) -> None:
        if result.deleted:
            return
        record = self._context.reader.message(parse_id(message_id))
        if record is None and result.requested:
            return
        states = [recipient.state for recipient in self._view.record(message_id).recipients]
        pending = sum(not state.is_final for state in states)
        raise StateError(
            f"message {message_id} has {pending} recipient(s) that are not settled; cancel them first, or delete with "
            "pending=True"
        )

    def _await_others(self, key: int, requested: Sequence[int], began: float) -> tuple[int, ...]:
        """Wait until the process that was asked has acted; returns the recipients that it changed."""
        deadline = self._context.clock.monotonic() + 2 * self._context.settings.sync_interval + 1.0
        while True:
            record = self._context.reader.message(key)
            done = _acted_on(record, requested, began)
            if record is None or len(done) == len(requested) or self._context.clock.monotonic() >= deadline:
                return done
            time.sleep(LOOK_SECONDS)

    # Many

    def select(self, selection: Selection, *, action: Action | None = None, sample: int = SAMPLE) -> Preview:
        """Return how many recipients a selection means now, and the first of them.

        Args:
            selection: which; without states all pending ones, or those to which ``action`` applies.
            action: what is to be done with them.
            sample: how many to show.
        """
        selection = narrowed(selection, action)
        reader, now = self._context.reader, self._context.clock.time()
        count, messages = reader.count_selected(selection, now=now)
        entries: list[QueueEntry] = []
        for key, index in reader.selected(selection, now=now, after=None, limit=sample):
            record = reader.message(key)
            if record is not None:
                entries.append(queue_entry(record, record.recipients[index]))
        return Preview(count, messages, tuple(entries))

    def apply(  # noqa: PLR0913 - by keyword
        self,
        action: Action,
        selection: Selection,
        *,
        batch: int = BATCH,
        timeout: float | None = None,
        progress: Progress | None = None,
        idle: bool = False,
    ) -> BulkResult:
        """Do something with all recipients that a selection means, in transactions of ``batch`` recipients.

        It takes those that were selected when it began: what is submitted later is not its business (see
        :meth:`postroom.Spooler.order`). Nothing stops it but an error; repeated, it does what is left.

        Args:
            action: what, by whom and why.
            selection: which; without states those to which the action applies.
            batch: recipients changed in one transaction.
            timeout: seconds that the store may take for one of them; by default ``settings.submit_timeout``.
            progress: called after each transaction.
            idle: only those that wait in the spool for a later time, in nobody's hand, and not for ``send_at``.

        Raises:
            UsageError: the action's argument cannot be used.
            SpoolUnavailable: the store did not answer. What was done before stays done.
        """
        self.check(action)
        if batch < 1:
            raise UsageError("batch", f"{batch!r} is too small", "give 1 or more")
        selection = narrowed(selection, action)
        began = self._context.clock.time()
        last = self._context.store.ids.next()
        result = BulkResult(action, selection, number=self._log(action, selection, 0, None, timeout))
        after: tuple[int, int] | None = None
        while page := self._page(selection, began, after, batch, last, idle=idle):
            after = page[-1]
            result = self._batch(result, page, timeout)
            if progress is not None:
                progress(result)
        self._log(action, selection, result.changed, result.number, timeout)
        return result

    def _page(  # noqa: PLR0913 - what its one caller has at hand
        self,
        selection: Selection,
        began: float,
        after: tuple[int, int] | None,
        limit: int,
        last: int,
        *,
        idle: bool,
    ) -> Sequence[tuple[int, int]]:
        rows = self._context.reader.selected(selection, now=began, after=after, limit=limit, idle=idle)
        return [row for row in rows if row[0] < last]

    def _batch(
        self, result: BulkResult, page: Sequence[tuple[int, int]], timeout: float | None
    ) -> BulkResult:
        subjects: dict[int, set[int]] = {}
        for key, index in page:
            subjects.setdefault(key, set()).add(index)
        whole = result.action.kind == "delete"
        done = self._perform(
            result.action, [(key, None if whole else frozenset(indices)) for key, indices in subjects.items()], timeout
        )  # fmt: skip
        return replace(
            result,
            seen=result.seen + len(page),
            changed=result.changed + sum(len(each.changed) for each in done),
            in_transit=result.in_transit + sum(len(each.in_transit) for each in done),
            requested=result.requested + sum(len(each.requested) for each in done),
            final=result.final + (0 if whole else sum(len(each.final) for each in done)),
            deleted=result.deleted + sum(each.deleted for each in done),
            batches=result.batches + 1,
        )

    def operations(self, limit: int = 100) -> Sequence[LoggedOperation]:
        """Return the latest bulk actions on the record, the latest first."""
        return self._context.reader.operations(limit)

    # What both need

    def check(self, action: Action) -> None:
        """Check an action before anything is done.

        Raises:
            UsageError: its argument is missing or cannot be used.
        """
        check_argument(action.kind, action.argument)
        if action.kind == "reroute":
            self.check_transport(action.argument, "argument")
        if action.kind == "redirect":
            self.check_address(action.argument)
        if action.kind == "delete" and action.argument not in {"", WITH_PENDING}:
            raise UsageError("argument", f"{action.argument!r} means nothing to delete", "leave it out")

    def check_transport(self, name: str, field: str) -> None:
        """Check that there is a transport of this name, here or in another process.

        Raises:
            UsageError: there is none.
        """
        known = {
            *self._context.transports,
            *(standing.transport for standing in self._context.reader.standings()),
        }
        if name not in known:
            names = ", ".join(sorted(known)) or "none is configured or running"
            raise UsageError(field, f"there is no transport {name!r}", f"known are: {names}")

    def check_address(self, argument: str) -> None:
        """Check that somebody delivers where recipients are redirected, as far as this process knows.

        Raises:
            UnknownAddressType: nobody does.
        """
        router = self._context.router
        address = new_address(argument, _ANY_MAILBOX)
        if router.routes and not router.plan(address):
            raise UnknownAddressType(
                "argument", f"no transport delivers to {address}", "configure one, or give another address"
            )

    def _perform(
        self, action: Action, subjects: Sequence[tuple[int, frozenset[int] | None]], timeout: float | None
    ) -> Sequence[Controlled]:
        return perform(
            self._context,
            action=action,
            subjects=subjects,
            timeout=self._limit(timeout),
            running=self._running,
        )

    def _log(
        self, action: Action, selection: Selection, changed: int, number: int | None, timeout: float | None
    ) -> int:
        return log_operation(
            self._context, action=action, selection=selection.to_json(), changed=changed, operation=number,
            timeout=self._limit(timeout), running=self._running,
        )  # fmt: skip

    def _limit(self, timeout: float | None) -> float:
        return self._context.settings.submit_timeout if timeout is None else timeout


def _acted_on(record: MessageRecord | None, numbers: Collection[int], since: float) -> tuple[int, ...]:
    """Return which of these recipients an operator has changed since then."""
    if record is None:
        return tuple(numbers)
    return tuple(
        recipient.index
        for recipient in record.recipients
        if recipient.index in numbers
        and any(entry.outcome == "operator" and entry.at >= since for entry in recipient.history)
    )
