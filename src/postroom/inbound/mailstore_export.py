"""Incoming messages as files of other mail programs: mbox, Maildir and eml.

As for sent mail (:mod:`postroom.mailfiles`); a **Maildir** is made where there is none, and added to where there is.
A message's marks become the flags of its file (S seen, R replied, F flagged); messages that were not read lie in
``new``, the others in ``cur``. Files of a Maildir and eml files are the messages octet for octet. An mbox has LF line
ends, so that from it messages come back as they were only if all their lines ended with CRLF.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final, Literal

from postroom.errors import UsageError
from postroom.ids import format_id
from postroom.inbound.values import InboundRecord
from postroom.mailfiles import KeptMessage, atomic_file, write_messages
from postroom.sentitems import Exported

__all__ = ["MailFormat", "export_mail"]

MailFormat = Literal["mbox", "maildir", "eml"]

SAMPLE: Final = 20

Target = str | Path | IO[bytes]


class _Contents:
    """Yields what is there, one message in memory at a time, and counts it."""

    def __init__(self, records: Iterable[InboundRecord], content: Callable[[int], bytes | None]) -> None:
        self._records = records
        self._content = content
        self._messages = 0
        self._octets = 0
        self._skipped = 0
        self._sample: list[str] = []

    def pairs(self) -> Iterator[tuple[InboundRecord, bytes]]:
        for record in self._records:
            content = self._content(record.key)
            if content is None:
                self._skipped += 1
                if len(self._sample) < SAMPLE:
                    self._sample.append(format_id(record.key))
                continue
            self._messages += 1
            self._octets += len(content)
            yield record, content

    def kept(self) -> Iterator[KeptMessage]:
        for record, content in self.pairs():
            yield KeptMessage(format_id(record.key), record.sender or "", record.received, content)

    def result(self) -> Exported:
        return Exported(self._messages, self._octets, self._skipped, tuple(self._sample))


def export_mail(
    records: Iterable[InboundRecord],
    content: Callable[[int], bytes | None],
    to: Target,
    form: MailFormat,
    *,
    overwrite: bool,
) -> Exported:
    """Write messages to files; see :meth:`postroom.inbound.mailstore.MailStore.export`.

    Raises:
        UsageError: the format is unknown, a file is there already, or a file object is given where a folder is needed.
        OSError: a file cannot be written.
    """
    contents = _Contents(records, content)
    if form == "maildir":
        if not isinstance(to, str | Path):
            raise UsageError("to", "is a file, and a Maildir is a folder", "name a folder")
        _write_maildir(contents.pairs(), Path(to), overwrite=overwrite)
    elif form in {"mbox", "eml"}:
        write_messages(contents.kept(), to, form, overwrite=overwrite)
    else:
        raise UsageError("format", f"{form!r} is unknown", 'give "mbox", "maildir" or "eml"')
    return contents.result()


def _write_maildir(pairs: Iterable[tuple[InboundRecord, bytes]], folder: Path, *, overwrite: bool) -> None:
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    there = {
        path.name.partition(":")[0]: path for name in ("new", "cur") for path in (folder / name).iterdir()
    }
    for record, content in pairs:
        base = f"{int(record.received)}.{format_id(record.key)}.postroom"
        former = there.get(base)
        if former is not None and not overwrite:
            raise UsageError(
                "to",
                f"the message {format_id(record.key)} is in {folder} already",
                "name another folder, or allow it to be overwritten",
            )
        flags = "".join(
            flag
            for flag, holds in (("F", record.flagged), ("R", record.answered), ("S", record.seen))
            if holds
        )
        path = folder / "cur" / f"{base}:2,{flags}" if flags else folder / "new" / base
        with atomic_file(path, overwrite=overwrite) as file:
            file.write(content)
        if former is not None and former != path:
            former.unlink(missing_ok=True)
