"""``[reports]``: who is told what became of a message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from postroom.config_objects import imported, reference
from postroom.config_values import (
    Reader,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    integer,
    octets,
    string,
    strings,
    table,
    unlimited,
)
from postroom.envelopes import Report
from postroom.reports.facts import DeliveryReport
from postroom.reports.policy import ReportPolicy
from postroom.reports.wording import ENGLISH, TemplateWording, Wording

__all__ = ["REPORTS", "TEMPLATES", "Reports", "read_reports", "report_kinds"]

SUBJECT: Final = "Subject:"


def report_kinds(value: Any) -> frozenset[Report]:
    """Read a list of kinds of report."""
    read = choice(*Report)
    return frozenset(Report(read(name)) for name in strings(value))


def _deliver(value: Any) -> str:
    return "spool" if value == "spool" else reference(value)


REPORTS: Final[Mapping[str, Reader]] = {
    "enabled": boolean,
    "kinds": report_kinds,
    "linger": duration,
    "delay_after": duration,
    "max_original": octets,
    "postmaster": string,
    "reporting_mta": string,
    "author": string,
    "per_hour": unlimited(integer),
    "max_wait": duration,
    "templates": table,
    "deliver": _deliver,
    "callback_timeout": duration,
}
TEMPLATES: Final[Mapping[str, Reader]] = dict.fromkeys(Report, string)


@dataclass(frozen=True, slots=True)
class Reports:
    """What ``[reports]`` says.

    Attributes:
        section: the table, for errors.
        policy: all of it but for the function that reports go to; None for no reports.
        deliver: "spool", or what names that function.
    """

    section: Section
    policy: ReportPolicy | None
    deliver: str = "spool"

    def make(self, *, deliver: bool) -> ReportPolicy | None:
        """Return the policy. The function is imported only where it is called, which is where ``deliver`` is True.

        Raises:
            ConfigurationError: it cannot be imported, or is no function.
        """
        if self.policy is None or self.deliver == "spool" or not deliver:
            return self.policy
        function = self.section.convert("deliver", _function, self.deliver)
        return replace(self.policy, deliver=function)


def _function(text: str) -> Callable[[DeliveryReport], object]:
    found = imported(text)
    if not callable(found) or isinstance(found, type):
        raise Unreadable(f"{text} is no function", "name one that takes a DeliveryReport")
    function: Callable[[DeliveryReport], object] = found
    return function


def read_reports(section: Section, folder: Path) -> Reports:
    """Return what the table says; templates are read.

    Args:
        section: ``[reports]``.
        folder: what the templates' paths are relative to.
    """
    given = section.read(REPORTS)
    enabled = given.pop("enabled", True)
    deliver = given.pop("deliver", "spool")
    if "callback_timeout" in given and deliver == "spool":
        raise section.error(
            "callback_timeout",
            "is for a function, and reports go to the spool",
            "leave it out, or set deliver",
        )
    if "templates" in given:
        inner = section.inner("templates", given["templates"])
        wordings: dict[Report, Wording] = {
            Report(kind): _wording(inner, kind, folder / Path(path).expanduser())
            for kind, path in inner.read(TEMPLATES).items()
        }
        given["templates"] = {**ENGLISH, **wordings}
    policy: ReportPolicy = section.make(lambda: ReportPolicy(**given))
    return Reports(section, policy if enabled else None, deliver)


def _wording(section: Section, kind: str, file: Path) -> TemplateWording:
    """Return the wording of a template file: a line ``Subject: …``, an empty line, and the text."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise section.error(
            kind, f"{file} cannot be read: {error.strerror}", "name a template file"
        ) from None
    except UnicodeDecodeError:
        raise section.error(kind, f"{file} is not UTF-8", "encode it as UTF-8") from None
    first, _, rest = text.partition("\n")
    empty, _, body = rest.partition("\n")
    subject = first.removeprefix(SUBJECT).strip()
    if not first.startswith(SUBJECT) or not subject or empty.strip() or not body.strip():
        raise section.error(
            kind,
            f"{file} is no template",
            f"begin it with a line `{SUBJECT} …`, an empty line, and then the text",
        )
    return section.make(
        lambda: TemplateWording(subject, body), lambda field: f"{kind} {file}: {field.rpartition('.')[2]}"
    )
