"""A transport that writes a line to the log instead of sending: for development and dry runs."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from postroom.delivery import Delivery
from postroom.outcomes import Delivered
from postroom.replies import one_line
from postroom.transports.base import Outcomes, Session, Transport

__all__ = ["LogTransport"]

_DELIVERED = Delivered()


@dataclass(kw_only=True, eq=False)
class LogTransport(Transport):
    """Logs one line per delivery through :mod:`logging` and calls it delivered. Thread-safe.

    The record carries ``postroom_message_id`` (str), ``postroom_sender`` (str), ``postroom_recipients``
    (list of str) and ``postroom_size`` (octets, int) as extra attributes for structured handlers. The content
    is not logged.

    Attributes:
        address_types: any may be given, for example ``{"smtp"}`` to see what would be sent; "log" by default.
        logger: name of the logger.
        level: level of the record.
    """

    name: str = "log"
    address_types: Collection[str] = frozenset({"log"})
    logger: str = "postroom.transports.log"
    level: int = logging.INFO

    def open(self) -> Session:
        """Return a session."""
        return LogSession(logging.getLogger(self.logger), self.level)


class LogSession(Session):
    """Writes lines."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level

    def send(self, delivery: Delivery) -> Outcomes:
        """Log the delivery."""
        if self._logger.isEnabledFor(self._level):
            recipients = [str(target.address) for target in delivery.targets]
            size = len(delivery.content)
            line = one_line(f"{delivery.message_id} from <{delivery.sender}> to {', '.join(recipients)}")
            self._logger.log(
                self._level,
                "%s, %d octets",
                line,
                size,
                extra={
                    "postroom_message_id": delivery.message_id,
                    "postroom_sender": delivery.sender,
                    "postroom_recipients": recipients,
                    "postroom_size": size,
                },
            )
        return _DELIVERED

    def close(self) -> None:
        """Nothing is held."""
