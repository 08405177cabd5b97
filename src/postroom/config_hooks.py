"""``[preprocessing]``, ``[[preprocessor]]`` and ``[[sent_hook]]``: the hooks of a configuration file.

What the file says is checked when it is read. Keys are read and code is imported only when a spooler is made, so that
looking at a queue needs neither.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from postroom.config_hook_objects import preprocessor_of, sent_hook_of
from postroom.config_objects import reference
from postroom.config_transports import LIMITS, default_limits
from postroom.config_values import (
    Reader,
    Section,
    boolean,
    choice,
    duration,
    guess,
    string,
    strings,
    table,
    tables,
    types,
)
from postroom.errors import InternalError
from postroom.hooks import ANY_TYPE, Preprocessor, SentHook, Verdict, Work
from postroom.preprocessing.dkim import DkimKey, DkimSigner
from postroom.preprocessing.footers import Footer
from postroom.preprocessing.stage import PreprocessTransport
from postroom.status import MessageStatus
from postroom.transports.base import Limits, Transport

__all__ = [
    "COMMON",
    "KEY",
    "KINDS",
    "PREPROCESSING",
    "SENT_HOOK",
    "PreprocessorSource",
    "SentHookSource",
    "check_address_types",
    "make_preprocessors",
    "make_sent_hooks",
    "read_preprocessing",
    "read_preprocessor",
    "read_sent_hook",
]

PREPROCESSING: Final[Mapping[str, Reader]] = {
    key: LIMITS[key]
    for key in (
        "concurrency", "window", "window_bytes", "recipients_per_delivery", "attempt_timeout", "hang_grace",
    )
}  # fmt: skip
COMMON: Final[Mapping[str, Reader]] = {
    "kind": string,
    "name": string,
    "address_types": types,
    "timeout": duration,
    "on_error": choice("defer", "fail", "skip"),
}
FOOTER: Final[Mapping[str, Reader]] = {"text": string, "html": string}
DKIM: Final[Mapping[str, Reader]] = {
    "keys": tables,
    "headers": strings,
    "oversigned": strings,
    "canonicalization": string,
    "seven_bit": boolean,
    "unsigned": choice("leave", "fail"),
}
KEY: Final[Mapping[str, Reader]] = {
    "domain": string,
    "selector": string,
    "private_key": string,
    "identity": string,
}
PYTHON: Final[Mapping[str, Reader]] = {"object": reference, "options": table}
SENT_HOOK: Final[Mapping[str, Reader]] = {**PYTHON, "name": string, "timeout": duration}

KINDS: Final[Mapping[str, tuple[Mapping[str, Reader], tuple[str, ...]]]] = {
    "footer": (FOOTER, ()),
    "dkim": (DKIM, ("keys",)),
    "python": (PYTHON, ("object",)),
}
"""Kind → the options that are its own, and those that must be given."""


@dataclass(kw_only=True, eq=False)
class _Elsewhere(Preprocessor):
    """Stands for a preprocessor where messages are only accepted: it says which address types have one."""

    name: str = "elsewhere"

    def process(self, work: Work) -> Verdict:
        """Never called.

        Raises:
            InternalError: it was.
        """
        raise InternalError(
            f"{self.name} is run by the process that delivers, not for {work.message_id} here"
        )


@dataclass(kw_only=True, eq=False)
class _ToldElsewhere(SentHook):
    """Stands for a sent-hook where messages are only accepted."""

    name: str = "elsewhere"

    def sent(self, status: MessageStatus, content: bytes | None) -> None:
        """Never called.

        Raises:
            InternalError: it was.
        """
        del content
        raise InternalError(f"{self.name} is told by the process that delivers, not of {status.id} here")


@dataclass(frozen=True, slots=True)
class PreprocessorSource:
    """What a ``[[preprocessor]]`` section says.

    Attributes:
        section: the table, for errors.
        kind: one of :data:`KINDS`.
        common: the options of every preprocessor.
        own: those of its kind.
    """

    section: Section
    kind: str
    common: Mapping[str, Any]
    own: Mapping[str, Any]

    def make(self, *, deliver: bool) -> Preprocessor:
        """Return the preprocessor; with ``deliver`` False what stands for it, as far as that needs no keys.

        Raises:
            ConfigurationError: a key cannot be used, or an object not be imported.
        """
        section = self.section
        if self.kind == "footer":
            return section.make(lambda: Footer(**self.common, **self.own), _footer_key)
        if self.kind == "dkim":
            if not deliver:
                own: dict[str, Any] = {"name": DkimSigner.name, "address_types": DkimSigner.address_types}
                own.update(self.common)
                return _Elsewhere(**own)
            return section.make(lambda: DkimSigner(**self.common, **self.own), _after_first)
        # Imported also where it is not called: which address types it handles is its own to say.
        return preprocessor_of(section, self.own["object"], self.own.get("options", {}), self.common)


@dataclass(frozen=True, slots=True)
class SentHookSource:
    """What a ``[[sent_hook]]`` section says.

    Attributes:
        section: the table, for errors.
        common: the options of every sent-hook.
        own: what names the object.
    """

    section: Section
    common: Mapping[str, Any]
    own: Mapping[str, Any]

    def make(self, *, deliver: bool) -> SentHook:
        """Return the sent-hook; with ``deliver`` False what stands for it.

        Raises:
            ConfigurationError: the object cannot be imported, or is none.
        """
        if not deliver:
            return _ToldElsewhere(**self.common)
        return sent_hook_of(self.section, self.own["object"], self.own.get("options", {}), self.common)


def read_preprocessing(section: Section, *, preprocessors: int) -> Limits | None:
    """Return the limits of the stage that runs the preprocessors, None for its own.

    Args:
        section: ``[preprocessing]``.
        preprocessors: how many there are.
    """
    given = section.read(PREPROCESSING)
    if not given:
        return None
    if not preprocessors:
        raise section.error(
            next(iter(given)), "is for preprocessors, and there are none", "add a [[preprocessor]]"
        )
    return section.make(lambda: replace(default_limits(PreprocessTransport), **given), _last)


def read_preprocessor(section: Section, folder: Path) -> PreprocessorSource:
    """Return what a section says.

    Args:
        section: the ``[[preprocessor]]`` table.
        folder: what the paths of keys are relative to.
    """
    if "kind" not in section.values:
        raise section.error("kind", "is missing", f"add kind = one of: {', '.join(KINDS)}")
    kind: str = section.convert("kind", choice(*KINDS), section.values["kind"])
    own, required = KINDS[kind]
    given = section.read({**COMMON, **own}, required)
    common: dict[str, Any] = {key: given[key] for key in COMMON if key in given and key != "kind"}
    options = {key: given[key] for key in own if key in given}
    section.make(lambda: _Elsewhere(**common))
    if "keys" in options:
        if not options["keys"]:
            raise section.error(
                "keys", "is empty", "give at least one: { domain = …, selector = …, private_key = … }"
            )
        options["keys"] = [
            _key(section.inner(f"keys[{position}]", values), folder)
            for position, values in enumerate(options["keys"])
        ]
    source = PreprocessorSource(section, kind, common, options)
    if kind == "footer":
        source.make(deliver=False)
    return source


def _key(section: Section, folder: Path) -> DkimKey:
    given = section.read(KEY, ["domain", "selector", "private_key"])
    if "-----" in given["private_key"]:
        # Not quoted in the error: it is a secret.
        raise section.error(
            "private_key", "is a secret, and this file is no place for one", "give the path of a PEM file"
        )
    path = folder / Path(given.pop("private_key")).expanduser()
    return DkimKey(private_key=path, **given)


def read_sent_hook(section: Section) -> SentHookSource:
    """Return what a ``[[sent_hook]]`` section says."""
    given = section.read(SENT_HOOK, ["object"])
    common: dict[str, Any] = {key: given[key] for key in given if key not in PYTHON}
    section.make(lambda: _ToldElsewhere(**common))
    return SentHookSource(section, common, {key: given[key] for key in PYTHON if key in given})


def make_preprocessors(sources: Sequence[PreprocessorSource], *, deliver: bool) -> list[Preprocessor]:
    """Return the preprocessors, each with a name of its own.

    Raises:
        ConfigurationError: see :meth:`PreprocessorSource.make`, or two have one name.
    """
    made = [source.make(deliver=deliver) for source in sources]
    _check_names([source.section for source in sources], [each.name for each in made])
    return made


def make_sent_hooks(sources: Sequence[SentHookSource], *, deliver: bool) -> list[SentHook]:
    """Return the sent-hooks, each with a name of its own.

    Raises:
        ConfigurationError: see :meth:`SentHookSource.make`, or two have one name.
    """
    made = [source.make(deliver=deliver) for source in sources]
    if deliver:
        _check_names([source.section for source in sources], [each.name for each in made])
    return made


def _check_names(sections: Sequence[Section], names: Sequence[str]) -> None:
    for position, (section, name) in enumerate(zip(sections, names, strict=True)):
        if name in names[:position]:
            raise section.error("name", f"{name!r} is taken", "give it a name of its own: name = …")


def check_address_types(sources: Sequence[PreprocessorSource], transports: Sequence[Transport]) -> None:
    """Check that a preprocessor is not for address types that nobody has, which would pass it by in silence.

    Raises:
        ConfigurationError: one is.
    """
    patterns = [pattern for transport in transports for pattern in transport.patterns]
    heads = {pattern.partition(":")[0].lower() for pattern in patterns if ":" in pattern}
    if any(set(head) & set("*?[") for head in heads):
        return
    known = {"smtp"} if len(heads) < len(patterns) else set[str]()
    known = known.union(heads, *(transport.address_types for transport in transports))
    for source in sources:
        named: Collection[str] = source.common.get("address_types", ANY_TYPE)
        for address_type in sorted(set() if named == ANY_TYPE else set(named) - known):
            raise source.section.error(
                "address_types",
                f"no transport takes addresses of type {address_type!r}",
                guess(address_type, known),
            )


def _footer_key(field: str) -> str:
    return {"footer": "text or html", "footer.plain": "text", "footer.html": "html"}.get(field, field)


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _after_first(field: str) -> str:
    return field.partition(".")[2] or field
