"""The names of folders."""

from typing import Final

from postroom.errors import ConfigurationError

__all__ = ["INBOX", "JUNK", "QUARANTINE", "REPORTS", "TRASH", "check_folder", "check_tag"]

INBOX: Final = "Inbox"
REPORTS: Final = "Reports"
JUNK: Final = "Junk"
QUARANTINE: Final = "Quarantine"
TRASH: Final = "Trash"

MAX_FOLDER: Final = 255
MAX_TAG: Final = 64
"""Characters."""


def check_folder(name: object, field: str) -> str:
    """Return the name of a folder: a path of parts between slashes.

    Raises:
        ConfigurationError: it cannot be one; names ``field``.
    """
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= MAX_FOLDER
        or not name.isprintable()
        or any(part != part.strip() or part in {"", ".", ".."} for part in name.split("/"))
    ):
        raise ConfigurationError(
            field, f"{name!r} names no folder", "give a path such as 'Inbox' or 'Support/Open'"
        )
    return name


def check_tag(tag: object, field: str) -> str:
    """Return a tag.

    Raises:
        ConfigurationError: it cannot be one; names ``field``.
    """
    if (
        not isinstance(tag, str)
        or not 1 <= len(tag) <= MAX_TAG
        or not tag.isprintable()
        or set(tag) & set(", ")
    ):
        raise ConfigurationError(
            field,
            f"{tag!r} is no tag",
            f"give 1 to {MAX_TAG} printable characters without comma and space",
        )
    return tag
