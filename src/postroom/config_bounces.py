"""``[bounces]``: the signed return paths of a configuration file, which the transports to mail servers share."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from postroom.config_secrets import SecretSource, read_secret
from postroom.config_values import Reader, Section, string
from postroom.errors import ConfigurationError
from postroom.tokens import MIN_SECRET, Tokens
from postroom.transports.base import Transport

__all__ = ["BOUNCES", "Bounces", "read_bounces"]

log = logging.getLogger("postroom")

BOUNCES: Final[Mapping[str, Reader]] = {
    "format": string,
    "secret_env": string,
    "secret_file": string,
    "former_env": string,
    "former_file": string,
}


@dataclass(frozen=True, slots=True)
class Bounces:
    """What ``[bounces]`` says.

    Attributes:
        section: the table, for errors.
        format: of the addresses.
        secrets: the one that signs, and perhaps the former one, which is still believed.
    """

    section: Section
    format: str
    secrets: tuple[SecretSource, ...]

    def on(self, transports: Sequence[Transport], *, deliver: bool) -> tuple[Transport, ...]:
        """Return the transports, those to mail servers with signed return paths.

        Who only accepts sends nothing, and may not be allowed to read the secret; then reports that it is given are
        matched by what they say, as without signatures.

        Raises:
            ConfigurationError: a secret cannot be had, or is too short.
        """
        try:
            tokens = self.section.make(
                lambda: Tokens([secret() for secret in self.secrets], self.format), _named
            )
        except ConfigurationError as error:
            if deliver:
                raise
            log.info("signed return paths cannot be read here: %s", error)
            return tuple(transports)
        return tuple(_with(transport, tokens) if _signs(transport) else transport for transport in transports)


def read_bounces(section: Section, transports: Sequence[Transport], folder: Path) -> Bounces | None:
    """Return what the table says, None where there is none.

    Args:
        section: ``[bounces]``.
        transports: all of them.
        folder: what the paths of secrets are relative to.
    """
    if not section.values:
        return None
    for key in ("secret", "former"):
        if key in section.values:
            raise section.error(
                key, "is a secret, and this file is no place for one", f"use {key}_file = … or {key}_env = …"
            )
    given = section.read(BOUNCES, ["format"])
    secrets = [*read_secret(section, "secret", given, folder)]
    if not secrets:
        raise section.error("secret_env", "is missing", "add secret_env = … or secret_file = …")
    secrets += read_secret(section, "former", given, folder)
    section.make(lambda: Tokens(bytes(MIN_SECRET), given["format"]))
    if not any(map(_signs, transports)):
        raise section.error(
            "format", "is for transports to mail servers, and there are none", 'add one of kind = "smtp"'
        )
    return Bounces(section, given["format"], tuple(secrets))


def _signs(transport: Transport) -> bool:
    """Return whether a transport speaks to servers that may send reports back: SMTP does, and LMTP need not."""
    return hasattr(transport, "bounces") and not getattr(transport, "lmtp", False)


def _with(transport: Any, tokens: Tokens) -> Transport:
    changed: Transport = replace(transport, bounces=tokens)
    return changed


def _named(field: str) -> str:
    return "secret_env or secret_file" if field == "secret" else field
