"""The one family of errors that Postroom raises.

::

    PostroomError
    ├── UsageError(ValueError)        what the caller did wrong; nothing was stored
    │   ├── InvalidAddress
    │   ├── InvalidMessage
    │   │   └── MessageTooLarge
    │   ├── NoRecipients
    │   ├── TooManyRecipients
    │   ├── UnknownAddressType
    │   ├── IdempotencyConflict
    │   ├── UnknownMessage
    │   └── ConfigurationError
    ├── StateError(RuntimeError)      the spooler cannot do that now
    │   ├── NotRunning
    │   ├── AlreadyRunning
    │   ├── ForkedProcess
    │   ├── CursorExpired             events behind it were forgotten
    │   ├── CursorMoved               somebody else committed the same cursor
    │   ├── InTransit                 a courier is sending it at this moment
    │   └── NotQueued                 it is already final
    ├── WorldError                    what the world did; the same call may succeed later
    │   ├── SpoolFull
    │   ├── SpoolUnavailable
    │   ├── TransportDown             a whole messaging system is unavailable
    │   └── SessionStale              an idle session was closed under us before it was used
    └── InternalError                 what we did: a bug; please report it

Every ``UsageError`` names the ``field``, the ``problem`` and the ``remedy``.
"""

__all__ = [
    "AlreadyRunning",
    "ConfigurationError",
    "CursorExpired",
    "CursorMoved",
    "ForkedProcess",
    "IdempotencyConflict",
    "InTransit",
    "InternalError",
    "InvalidAddress",
    "InvalidMessage",
    "MessageTooLarge",
    "NoRecipients",
    "NotQueued",
    "NotRunning",
    "PostroomError",
    "SessionStale",
    "SpoolFull",
    "SpoolUnavailable",
    "StateError",
    "TooManyRecipients",
    "TransportDown",
    "UnknownAddressType",
    "UnknownMessage",
    "UsageError",
    "WorldError",
]


class PostroomError(Exception):
    """The root: ``except PostroomError`` catches whatever Postroom raises on purpose."""


class UsageError(PostroomError, ValueError):
    """The caller gave something that cannot be used. Nothing was stored.

    Attributes:
        field: the argument or header at fault, for example ``to[2]`` or ``Subject``.
        problem: what is wrong with it.
        remedy: what would be right.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["UsageError"], tuple[str, str, str]]:
        return type(self), (self.field, self.problem, self.remedy)


class InvalidAddress(UsageError):
    """An address cannot be parsed, or is not allowed where it stands (RFC 5321 section 4.1.2)."""


class InvalidMessage(UsageError):
    """A message breaks RFC 5322 in a way that the next hop would refuse or misread."""


class MessageTooLarge(InvalidMessage):
    """A message is larger than ``max_message_size``."""


class NoRecipients(UsageError):
    """A submission names nobody to deliver to."""


class TooManyRecipients(UsageError):
    """A submission names more than ``max_recipients``."""


class UnknownAddressType(UsageError):
    """No configured transport handles a recipient's address type."""


class IdempotencyConflict(UsageError):
    """An idempotency key was used before with another payload."""


class UnknownMessage(UsageError):
    """The spool holds no message with this id (any more)."""


class ConfigurationError(UsageError):
    """A setting is missing, unknown or contradictory."""


class StateError(PostroomError, RuntimeError):
    """The spooler or the message is in a state that does not allow the call."""


class NotRunning(StateError):
    """The spooler was not started, or was stopped."""


class AlreadyRunning(StateError):
    """``start()`` was called twice."""


class ForkedProcess(StateError):
    """The spooler was started in a parent process; threads and locks do not survive ``fork()``."""


class CursorExpired(StateError):
    """Events behind a cursor are not kept any more (``keep_events``), so that some may have been missed.

    Attributes:
        after: the cursor.
        first: the earliest cursor that can still be read on from; what happened up to it is gone.
    """

    def __init__(self, after: int, first: int) -> None:
        super().__init__(
            f"events behind cursor {after} are not kept any more (the earliest left is {first}); read on after 0,"
            " and find out by other means what happened meanwhile"
        )
        self.after = after
        self.first = first

    def __reduce__(self) -> tuple[type["CursorExpired"], tuple[int, int]]:
        return type(self), (self.after, self.first)


class CursorMoved(StateError):
    """Another reader committed a named cursor since this one read from it: its events are that reader's."""


class InTransit(StateError):
    """A courier is sending the recipient at this moment, so it cannot be recalled (MAPI_E_UNABLE_TO_ABORT)."""


class NotQueued(StateError):
    """The recipient is final already (MAPI_E_NOT_IN_QUEUE)."""


class WorldError(PostroomError):
    """Something outside failed; the same call may succeed later."""


class SpoolFull(WorldError):
    """The message was not accepted within the timeout: the store is too far behind, or the disk is full."""


class SpoolUnavailable(WorldError):
    """The store did not answer in time or failed; whether the message was accepted is not known.

    Submit again with the same ``idempotency_key`` to be sure that it is accepted exactly once.
    """


class TransportDown(WorldError):
    """A whole messaging system is unavailable; raised by transports, costs no recipient an attempt.

    Attributes:
        retry_after: seconds after which the other side asked to be tried again, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class SessionStale(WorldError):
    """A kept session was closed by the other side before anything of this delivery was sent.

    Raised by a session's ``send``; the courier opens a fresh session and tries once more at no cost.
    """


class InternalError(PostroomError):
    """A bug in Postroom."""
