"""Supervision: actors that fail are started again, and nothing of it reaches the host process.

::

    Supervisor("postroom", [                          start order ↓      stop order ↑
        ChildSpec("store", start=…, essential=True),
        ChildSpec("router", start=…),
        supervisor_child("transports", [              a subtree, with a strategy of its own
            ChildSpec("smtp", start=…),
            ChildSpec("webhook", start=…),
        ]),
    ], strategy=Strategy.REST_FOR_ONE)

    whoever writes ──► Handle ──► Mailbox ──► MailboxActor      one incarnation; fails, hangs, ends
                       stays      signs of       │ reports its end
                       the same   life ◄──────┐  ▼
                                              └─ Keeper ──► decisions: who stops, who starts, when
                                                 one thread for each supervisor      pure functions

A supervisor's knowledge is data (``specs``, ``intensity``), its judgement pure functions (``decisions``), and
one thread, the keeper, does what they say. It knows pykka and tenacity; it knows nothing of mail.

Letters are lost with the mailbox that holds them: what must not be lost is kept elsewhere by whoever sends
it.
"""

from postroom.supervision.address import Handle
from postroom.supervision.decisions import wait_restart
from postroom.supervision.errors import (
    AskTimeout,
    ChildUnavailable,
    HungChild,
    InjectedCrash,
    LostChild,
    StartTimeout,
    SupervisionError,
    SupervisorStateError,
    UnknownChild,
)
from postroom.supervision.events import (
    ChildAbandoned,
    ChildDown,
    ChildEnded,
    ChildRestarting,
    ChildRow,
    ChildStarted,
    ChildState,
    SupervisionEvent,
)
from postroom.supervision.inbox import Mailbox
from postroom.supervision.intensity import Intensity
from postroom.supervision.letters import Crash
from postroom.supervision.mailbox import MailboxActor
from postroom.supervision.specs import ChildSpec, Restart, StartChild, Strategy, Subtree, supervisor_child
from postroom.supervision.supervisor import Supervisor

__all__ = [
    "AskTimeout",
    "ChildAbandoned",
    "ChildDown",
    "ChildEnded",
    "ChildRestarting",
    "ChildRow",
    "ChildSpec",
    "ChildStarted",
    "ChildState",
    "ChildUnavailable",
    "Crash",
    "Handle",
    "HungChild",
    "InjectedCrash",
    "Intensity",
    "LostChild",
    "Mailbox",
    "MailboxActor",
    "Restart",
    "StartChild",
    "StartTimeout",
    "Strategy",
    "Subtree",
    "SupervisionError",
    "SupervisionEvent",
    "Supervisor",
    "SupervisorStateError",
    "UnknownChild",
    "supervisor_child",
    "wait_restart",
]
