"""What is done about a complete message: sent-hooks are told, preprocessors forget what they kept for it."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from postroom.hooks import Preprocessor, SentHook
from postroom.preprocessing.threads import HookHung, HookThread, Hung
from postroom.status import MessageStatus

__all__ = ["Aftermath"]

log = logging.getLogger("postroom.hooks")

HUNG_PER_HOOK: Final = 2
HUNG_IN_ALL: Final = 8
"""Calls that may hang at a time."""


class Aftermath:
    """Sent-hooks and clean-ups, each bounded in time and harmless to the others. Used by one thread.

    Args:
        sent_hooks: told first, in this order.
        preprocessors: cleaned up after, in this order.
    """

    def __init__(self, sent_hooks: Sequence[SentHook], preprocessors: Sequence[Preprocessor] = ()) -> None:
        self._sent_hooks = tuple(sent_hooks)
        self._cleaners = tuple(
            each for each in preprocessors if type(each).clean_up is not Preprocessor.clean_up
        )
        self._hung = Hung(HUNG_PER_HOOK, HUNG_IN_ALL)
        self._thread = HookThread(self._hung)

    @property
    def needed(self) -> bool:
        """Whether there is anything to do about any message: if not, no followup is worth its row."""
        return bool(self._sent_hooks or self._cleaners)

    def conclude(self, status: MessageStatus, content: bytes | None) -> tuple[str, ...]:
        """Tell everybody once; return what went wrong, () when nothing did.

        Whoever calls it does so again later when something went wrong, for as long as seems worth it: hooks are told
        at least once, and those that had understood are told again.

        Args:
            status: of a complete message.
            content: as it was submitted, None when it is gone.
        """
        problems: list[str] = []
        for hook in self._sent_hooks:
            self._try(f"sent-hook {hook.name}", partial(hook.sent, status, content), hook.timeout, problems)
        for each in self._cleaners:
            self._try(f"clean-up of {each.name}", partial(each.clean_up, status.id), each.timeout, problems)
        return tuple(problems)

    def close(self) -> None:
        """Let the thread end that the hooks run in."""
        self._thread.close()

    def _try(self, what: str, function: Callable[[], None], timeout: float, problems: list[str]) -> None:
        try:
            self._thread.call(what, function, timeout)
        except HookHung as error:
            log.warning("%s: %s", what, error)
            problems.append(f"{what}: {error}")
        except Exception as error:
            # Other people's code: a message that is complete stays so whatever it raises.
            log.exception("%s fails", what)
            problems.append(f"{what}: {type(error).__name__}: {error}")
