"""What the demo's servers write down of each message that they took, and how it is read back.

The content goes into a file of its own first and then a line into ``index.jsonl``: a server that is killed in between
has recorded nothing, and has acknowledged nothing either. Pages written stay when a process is killed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Recorder", "read_records"]


class Recorder:
    """Writes records into a folder. Thread-safe; several processes one after the other may write.

    Args:
        folder: where to; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._index = os.open(
            folder / "index.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    def record(self, content: bytes, facts: Mapping[str, Any]) -> str:
        """Write one record and return its name."""
        name = os.urandom(8).hex()
        (self._folder / name).write_bytes(content)
        os.write(self._index, json.dumps({"file": name, **facts}).encode() + b"\n")
        return name


def read_records(folder: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the facts and the content of each record."""
    index = folder / "index.jsonl"
    if index.exists():
        for line in index.read_bytes().splitlines():
            facts: dict[str, Any] = json.loads(line)
            yield facts, (folder / facts["file"]).read_bytes()
