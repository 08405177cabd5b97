"""``[receiving]``, ``[[rule]]`` and ``[[postprocessor]]``: what is done with incoming mail.

What the file says is checked when it is read; code is imported only when a spooler is made that works with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from postroom.config_hook_objects import postprocessor_of
from postroom.config_objects import imported, reference
from postroom.config_retries import WAIT, read_wait
from postroom.config_values import (
    Reader,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    endless,
    integer,
    number,
    octets,
    string,
    strings,
    table,
)
from postroom.errors import InternalError
from postroom.inbound.hooks import Incoming, Postprocessed, Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.postprocessors import Route, SpamTag, StripAttachments
from postroom.inbound.rules import ReceiveRule
from postroom.retries import HOUR

__all__ = [
    "COMMON",
    "POSTPROCESSORS",
    "RECEIVING",
    "RULE",
    "PostprocessorSource",
    "check_names",
    "function_of",
    "kind_of",
    "make_postprocessors",
    "read_postprocessors",
    "read_receiving",
    "read_rule",
    "text",
]

# Values


def text(value: Any) -> str:
    """Read a string, which may be empty."""
    return "" if value == "" else string(value)


def folder(value: Any) -> str | None:
    """Read a folder's name, or false for none, which is None."""
    return None if value is False else string(value)


# What is done with all of it

RECEIVING: Final[Mapping[str, Reader]] = {
    "folder": string,
    "reports_folder": folder,
    "quarantine": string,
    "max_hops": integer,
    "keep_trash": endless,
    "attempts": integer,
    "wait": table,
    "clerks": integer,
    "read_receipts": choice("never", "ask", "always"),
    "identities": strings,
}
RULE: Final[Mapping[str, Reader]] = {
    "folder": string,
    "message_class": string,
    "recipient": string,
    "sender": string,
    "header": string,
    "subject": string,
    "receiver": string,
    "remote_folder": string,
    "tag": string,
    "tags": strings,
    "stop": boolean,
}


def read_receiving(section: Section) -> ReceivePolicy:
    """Return what ``[receiving]`` says."""
    given = section.read(RECEIVING)
    if "wait" in given:
        inner = section.inner("wait", given["wait"])
        given["wait"] = read_wait(inner, inner.read(WAIT), initial=30.0, longest=HOUR)
    if "identities" in given:
        given["identities"] = tuple(given["identities"])
    return section.make(lambda: ReceivePolicy(**given))


def read_rule(section: Section) -> ReceiveRule:
    """Return the rule that a ``[[rule]]`` section says."""
    given = section.read(RULE)
    if "folder" not in given and "tags" not in given:
        raise section.error("folder", "is missing", "say where the message goes, or which tags it gets")
    if "folder" not in given and "stop" in given:
        raise section.error("stop", "is for rules with a folder", "leave it out: tags never end the search")
    given.setdefault("folder", None)
    return section.make(lambda: ReceiveRule(**given))


# Postprocessors

COMMON: Final[Mapping[str, Reader]] = {
    "kind": string,
    "name": string,
    "timeout": duration,
    "on_error": choice("defer", "skip", "quarantine"),
}
SPAM: Final[Mapping[str, Reader]] = {
    "header": text,
    "score": string,
    "threshold": number,
    "tag": string,
    "folder": folder,
}
STRIP: Final[Mapping[str, Reader]] = {
    "types": strings,
    "extensions": strings,
    "max_size": octets,
    "note": string,
    "tag": string,
    "left": string,
}
ROUTE: Final[Mapping[str, Reader]] = {"to": table, "keep": boolean, "author": string, "sender": text}
PYTHON: Final[Mapping[str, Reader]] = {"object": reference, "options": table}

POSTPROCESSORS: Final[
    Mapping[str, tuple[Callable[..., Postprocessor] | None, Mapping[str, Reader], tuple[str, ...]]]
] = {
    "spam": (SpamTag, SPAM, ()),
    "strip": (StripAttachments, STRIP, ()),
    "route": (Route, ROUTE, ("to",)),
    "python": (None, PYTHON, ("object",)),
}
"""Type → class, the options that are its own, and those that must be given."""


@dataclass(kw_only=True, eq=False)
class _Elsewhere(Postprocessor):
    """Stands for a postprocessor where messages are only accepted: they wait for the process that runs it."""

    name: str = "elsewhere"

    def process(self, incoming: Incoming) -> Postprocessed:
        """Never called.

        Raises:
            InternalError: it was.
        """
        raise InternalError(
            f"{self.name} is run by the process that receives, not for {incoming.message_id} here"
        )


@dataclass(frozen=True, slots=True)
class PostprocessorSource:
    """What a ``[[postprocessor]]`` section says.

    Attributes:
        section: the table, for errors.
        kind: one of :data:`POSTPROCESSORS`.
        common: the options of every postprocessor.
        own: those of its kind.
    """

    section: Section
    kind: str
    common: Mapping[str, Any]
    own: Mapping[str, Any]

    def make(self, *, deliver: bool, number: int = 1) -> Postprocessor:
        """Return the postprocessor; with ``deliver`` False what stands for it where code would be imported.

        Args:
            deliver: it is to be run.
            number: of the section, for a name of what stands for it.

        Raises:
            ConfigurationError: its object cannot be imported, or is none.
        """
        make = POSTPROCESSORS[self.kind][0]
        if make is not None:
            return self.section.make(lambda: make(**self.common, **self.own))
        if not deliver:
            common: dict[str, Any] = {"name": f"elsewhere-{number}"}
            common.update(self.common)
            return _Elsewhere(**common)
        return postprocessor_of(self.section, self.own["object"], self.own.get("options", {}), self.common)


def read_postprocessors(sections: Sequence[Section]) -> tuple[PostprocessorSource, ...]:
    """Return what the ``[[postprocessor]]`` sections say."""
    sources = tuple(map(_read_postprocessor, sections))
    # Code is not imported yet: what it is called by itself shows later.
    known = [s.make(deliver=False, number=at).name for at, s in enumerate(sources, start=1)]
    check_names([source.section for source in sources], known)
    return sources


def _read_postprocessor(section: Section) -> PostprocessorSource:
    kind = kind_of(section, POSTPROCESSORS)
    _, own, required = POSTPROCESSORS[kind]
    given = section.read({**COMMON, **own}, required)
    options = {key: given[key] for key in own if key in given}
    if "to" in options:
        inner = section.inner("to", options["to"])
        options["to"] = inner.read(dict.fromkeys(options["to"], strings))
    common = {key: given[key] for key in COMMON if key in given and key != "kind"}
    section.make(lambda: _Elsewhere(**common))
    return PostprocessorSource(section, kind, common, options)


def make_postprocessors(sources: Sequence[PostprocessorSource], *, deliver: bool) -> list[Postprocessor]:
    """Return the postprocessors, each with a name of its own.

    Raises:
        ConfigurationError: see :meth:`PostprocessorSource.make`, or two have one name.
    """
    made = [source.make(deliver=deliver, number=at) for at, source in enumerate(sources, start=1)]
    check_names([source.section for source in sources], [each.name for each in made])
    return made


# What sections have in common


def kind_of(section: Section, types: Mapping[str, object]) -> str:
    """Return which of some types a section is.

    Raises:
        ConfigurationError: it does not say, or says something else.
    """
    if "kind" not in section.values:
        raise section.error("kind", "is missing", f"add kind = one of: {', '.join(types)}")
    return str(section.convert("kind", choice(*types), section.values["kind"]))


def function_of(parameters: str) -> Callable[[str], Callable[..., Any]]:
    """Return a reader that imports a function.

    Args:
        parameters: what it takes, for the remedy.
    """

    def read(text: str) -> Callable[..., Any]:
        found = imported(text)
        if not callable(found) or isinstance(found, type):
            raise Unreadable(f"{text} is no function", f"name one that takes {parameters}")
        function: Callable[..., Any] = found
        return function

    return read


def check_names(sections: Sequence[Section], names: Sequence[str]) -> None:
    """Check that each has a name of its own.

    Raises:
        ConfigurationError: two have one name.
    """
    for position, (section, name) in enumerate(zip(sections, names, strict=True)):
        if name in names[:position]:
            raise section.error("name", f"{name!r} is taken", "give it a name of its own: name = …")
