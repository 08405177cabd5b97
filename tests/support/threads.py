"""Which threads a piece of code left behind."""

import threading
import time
from collections.abc import Collection


def strays(before: Collection[threading.Thread], grace: float) -> list[str]:
    """Return the names of the non-daemon threads not in `before` that do not end within `grace` seconds.

    Such a thread keeps a host process from ending.
    """
    deadline = time.monotonic() + grace
    new = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in new:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sorted(thread.name for thread in new if thread.is_alive())
