"""Secrets that a configuration file names and that live elsewhere: in the environment, or in a file of their own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from postroom.config_values import Section
from postroom.errors import ConfigurationError

__all__ = ["SecretSource", "read_secret"]


class SecretSource:
    """A secret that lives outside the configuration; calling it reads it, so that a new one is taken up. Thread-safe.

    Once it was read, a file that is unreadable for a while does no harm: what was read last is returned.

    Args:
        where: names the key that it comes from.
        variable: the environment variable that holds it, or None.
        file: the file that holds it (white space around it does not count), or None.
    """

    def __init__(self, where: str, variable: str | None = None, file: Path | None = None) -> None:
        self.where = where
        self.variable = variable
        self.file = file
        self._last: str | None = None

    def __repr__(self) -> str:
        return f"<SecretSource {self.variable or self.file}>"

    def __call__(self, *_: object) -> str:
        """Return the secret as it is now, whatever it is asked for.

        Raises:
            ConfigurationError: it cannot be had, and never could.
        """
        try:
            text = self._from_environment() if self.file is None else self._from_file(self.file)
        except ConfigurationError:
            if self._last is None:
                raise
            return self._last
        self._last = text
        return text

    def _from_environment(self) -> str:
        text = os.environ.get(str(self.variable))
        if text is None:
            raise ConfigurationError(
                self.where, f"the environment has no variable {self.variable}", "set it for this process"
            )
        return self._not_empty(text)

    def _from_file(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                self.where,
                f"{file} cannot be read: {_reason(error)}",
                "make it readable for this process",
            ) from None
        return self._not_empty(text)

    def _not_empty(self, text: str) -> str:
        if not text:
            raise ConfigurationError(self.where, "the secret is empty", "put it there")
        return text


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8"


def read_secret(section: Section, key: str, options: dict[str, Any], folder: Path) -> Iterator[SecretSource]:
    """Yield the secret that ``key_env`` or ``key_file`` names, if any, having put it into ``options`` as ``key``."""
    variable, file = options.pop(f"{key}_env", None), options.pop(f"{key}_file", None)
    if variable is not None and file is not None:
        raise section.error(f"{key}_env", f"stands beside {key}_file", "give one of them")
    if variable is not None or file is not None:
        which = f"{key}_env" if file is None else f"{key}_file"
        path = None if file is None else folder / Path(file).expanduser()
        options[key] = SecretSource(f"{section.where} {which}", variable, path)
        yield options[key]
