"""Starting on a spool that is not empty: soon, with bounded memory, whatever is in it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postroom import Limits, MemoryTransport, Spooler, State
from tests.support import backlog
from tests.support.spooling import ledger_is_exact, settled, until

BACKLOG = Path(backlog.__file__)


def resident() -> int:
    """Return the octets of memory that this process has in use."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


@pytest.mark.parametrize(("in_doubt", "held"), [("resend", 0), ("hold", 30)])
def test_adoption(tmp_path: Path, in_doubt: str, held: int) -> None:
    path = tmp_path / "spool.db"
    backlog.build(path, 300, owned=True, journalled=30)
    transport = MemoryTransport(keep=1000, in_doubt="hold" if in_doubt == "hold" else "resend")
    with Spooler(path, [transport]) as spooler:
        until(lambda: transport.count == 300 - held, "the deliveries")
        until(
            lambda: spooler.tally().states.get(("memory", State.DELIVERED)) == 300 - held,
            "the record of them",
        )
        assert spooler.tally().states.get(("memory", State.HELD), 0) == held
        ledger_is_exact(spooler)
        # Without a journal anything that a dead process owned may have been sent; with one it is known what was.
        doubts = sum(delivery.targets[0].in_doubt for delivery in transport.deliveries)
        assert doubts == (300 if in_doubt == "resend" else 0)
        for entry in list(spooler.queue(states={State.HELD})):
            spooler.release(entry.id)
        settled(spooler)
        assert transport.count == 300


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_million_queued_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spool.db"
    count = int(os.environ.get("POSTROOM_TEST_BACKLOG", "1000000"))
    began = time.monotonic()
    subprocess.run([sys.executable, BACKLOG, path, str(count)], check=True)
    built = time.monotonic() - began
    transport = MemoryTransport(keep=0, limits=Limits(window=500))
    before = resident()
    began = time.monotonic()
    with Spooler(path, [transport]) as spooler:
        assert transport.wait_for(1, 10), "no delivery within ten seconds"
        first = time.monotonic() - began
        assert transport.wait_for(3000, 20)
        grown = resident() - before
        assert spooler.tally().imbalance == 0
        assert spooler.tally().pending >= count - transport.count
        began = time.monotonic()
        assert spooler.stop()
        stopped = time.monotonic() - began
    # The page caches of a dozen connections are allowed 64 MiB each, and this many messages are not in memory.
    assert grown < 200 * 1024 * 1024
    with capsys.disabled():
        print(  # noqa: T201 - the figures are for the log of the run
            f"\n{count} queued: built in {built:.1f} s, first delivery {first:.2f} s after start(), "
            f"{grown / 1e6:.0f} MB more memory, stopped in {stopped:.2f} s"
        )
