"""What a bulk action is asked, says and looks at: values without threads."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from postroom.recipients import State
from postroom.selections import Selection
from postroom.status import QueueEntry
from postroom.stores.base import Action
from postroom.stores.changing import APPLICABLE, WITH_PENDING

__all__ = ["BulkResult", "Preview", "Progress", "narrowed"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a selection means now.

    Attributes:
        count: recipients.
        messages: messages they belong to.
        sample: the first of them, in order of submission.
    """

    count: int
    messages: int
    sample: tuple[QueueEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a bulk action has done, so far or in the end. Counts recipients but for ``deleted``.

    Attributes:
        action: what was done, by whom and why.
        selection: to what.
        seen: recipients that were looked at.
        changed: recipients changed.
        in_transit: left alone because somebody is sending them.
        requested: in another process's memory; it was asked to change them.
        final: settled meanwhile.
        deleted: messages forgotten.
        batches: transactions.
        number: of the entry in the log of operations.
    """

    action: Action
    selection: Selection
    seen: int = 0
    changed: int = 0
    in_transit: int = 0
    requested: int = 0
    final: int = 0
    deleted: int = 0
    batches: int = 0
    number: int = 0


Progress = Callable[[BulkResult], object]
"""Called after each transaction of a bulk action; what it raises ends the action, which may be repeated."""


def narrowed(selection: Selection, action: Action | None) -> Selection:
    """Return a selection with the states that are meant when it names none."""
    if selection.states:
        return selection
    if action is None:
        states = {state for state in State if not state.is_final}
    elif action.argument == WITH_PENDING and action.kind == "delete":
        states = set(State)
    else:
        states = set(APPLICABLE.get(action.kind, ()))
        # What is being sent is looked at too, and told as left alone.
        states |= {State.SENDING} if State.QUEUED in states else set()
    return replace(selection, states=tuple(states))
