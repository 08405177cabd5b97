"""Hooks and receivers that a configuration file names: an object, a class with its options, or a function."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from postroom.config_objects import imported
from postroom.config_values import Section
from postroom.hooks import Preprocessor, SentHook, preprocessor, sent_hook
from postroom.inbound.hooks import Postprocessor, postprocessor
from postroom.receivers.base import Receiver

__all__ = ["postprocessor_of", "preprocessor_of", "receiver_of", "sent_hook_of"]


@dataclass(frozen=True, slots=True)
class _Sort:
    """A sort of hook.

    Attributes:
        base: its class.
        section: where it is named.
        parameters: of a function that is one, "" where none can be.
    """

    base: type[Any]
    section: str
    parameters: str


PREPROCESSOR: Final = _Sort(Preprocessor, '[[preprocessor]] with kind = "python"', "(message, work)")
SENT_HOOK: Final = _Sort(SentHook, "[[sent_hook]]", "(status, content)")
POSTPROCESSOR: Final = _Sort(Postprocessor, '[[postprocessor]] with type = "python"', "(message, incoming)")
RECEIVER: Final = _Sort(Receiver, '[[receiver]] with type = "python"', "")
SORTS: Final = (PREPROCESSOR, SENT_HOOK, POSTPROCESSOR, RECEIVER)


def preprocessor_of(
    section: Section, text: str, options: Mapping[str, Any], common: Mapping[str, Any]
) -> Preprocessor:
    """Return the preprocessor that a text names.

    Args:
        section: where it stands, for errors.
        text: "package.module:name" of a :class:`Preprocessor`, of a class of such, or of a function of
            ``(message, work)``.
        options: what the class is made with.
        common: the fields of every preprocessor that the file gives; what it does not give stays as it is.

    Raises:
        ConfigurationError: it cannot be imported, is none, or cannot be made.
    """
    found = _found(section, text, options, common, PREPROCESSOR)
    if isinstance(found, Preprocessor):
        return found
    return section.make(lambda: preprocessor(**common)(found))


def sent_hook_of(
    section: Section, text: str, options: Mapping[str, Any], common: Mapping[str, Any]
) -> SentHook:
    """Return the sent-hook that a text names; as :func:`preprocessor_of`, with functions of ``(status, content)``."""
    found = _found(section, text, options, common, SENT_HOOK)
    if isinstance(found, SentHook):
        return found
    hook: SentHook = section.make(lambda: _with(sent_hook(found), common, SentHook))
    return hook


def postprocessor_of(
    section: Section, text: str, options: Mapping[str, Any], common: Mapping[str, Any]
) -> Postprocessor:
    """Return the postprocessor that a text names; as :func:`preprocessor_of`, with ``(message, incoming)``."""
    found = _found(section, text, options, common, POSTPROCESSOR)
    if isinstance(found, Postprocessor):
        return found
    return section.make(lambda: postprocessor(**common)(found))


def receiver_of(
    section: Section, text: str, options: Mapping[str, Any], common: Mapping[str, Any]
) -> Receiver:
    """Return the receiver that a text names; as :func:`preprocessor_of`, but no function makes one."""
    found: Receiver = _found(section, text, options, common, RECEIVER)
    return found


def _found(
    section: Section, text: str, options: Mapping[str, Any], common: Mapping[str, Any], sort: _Sort
) -> Any:
    """Return the object if it is a hook, what its class makes, or the function that is to become one."""
    found = section.convert("object", imported, text)
    if isinstance(found, type) and issubclass(found, sort.base):
        return _made(section, text, found, {**options, **common})
    if options:
        raise section.error("options", f"are for a class, and {text} is none", "leave them out")
    if isinstance(found, sort.base):
        return section.make(lambda: _with(found, common, sort.base))
    for other in SORTS:
        if isinstance(found, other.base) or (isinstance(found, type) and issubclass(found, other.base)):
            raise section.error(
                "object", f"{text} is a {other.base.__name__}", f"name it in a section {other.section}"
            )
    if not sort.parameters:
        raise section.error(
            "object", f"{text} is no {sort.base.__name__}", "name one, or a class of such with its options"
        )
    if not callable(found) or isinstance(found, type):
        raise section.error(
            "object",
            f"{text} is neither a {sort.base.__name__} nor a function",
            f"name one, or a function of {sort.parameters}",
        )
    if not _takes_two(found):
        raise section.error(
            "object",
            f"{text} does not take {sort.parameters}",
            f"define it with these parameters: {sort.parameters}",
        )
    return found


def _made(section: Section, text: str, hook: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return section.make(lambda: hook(**options))
    except TypeError as error:
        raise section.error("options", f"do not make a {text}: {error}", "see what it takes") from error


def _with(hook: Any, common: Mapping[str, Any], base: type[Any]) -> Any:
    """Return a hook that somebody made, with what the file says of it."""
    if not common:
        return hook
    changed = copy.copy(hook)
    for name, value in common.items():
        setattr(changed, name, value)
    # The base's checks alone: a class of one's own need not be fit for being made ready twice.
    if hasattr(base, "__post_init__"):
        base.__post_init__(changed)
    return changed


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        # Some that are built in do not say what they take.
        return True
    return True
