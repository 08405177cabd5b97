"""Configuration files for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from postroom.config import Config, load
from postroom.transports.base import Transport

__all__ = ["MEMORY", "SMTP", "SPOOL_ONLY", "WEBHOOK", "configured", "transport_of"]

SPOOL_ONLY = '[spool]\npath = "spool.db"\n'
MEMORY = SPOOL_ONLY + '[[transport]]\nkind = "memory"\n'
SMTP = SPOOL_ONLY + '[[transport]]\nkind = "smtp"\nhost = "mail.example.org"\n'
WEBHOOK = SPOOL_ONLY + '[[transport]]\nkind = "webhook"\n'

T = TypeVar("T", bound=Transport)


def configured(folder: Path, text: str) -> Config:
    """Return what a file with this text says."""
    file = folder / "postroom.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def transport_of(kind: type[T]) -> Callable[[Path, str], T]:
    """Return what loads a text with one transport, of this class."""

    def read(folder: Path, text: str) -> T:
        (transport,) = configured(folder, text).transports
        assert isinstance(transport, kind)
        return transport

    return read
