"""Postroom: a store-and-forward message spooler that a Python server can embed."""

from importlib.metadata import version

from postroom.addresses import Address
from postroom.composing import Attachment, Message
from postroom.envelopes import Priority, Report, Submission
from postroom.errors import PostroomError
from postroom.receipts import PendingReceipt, Receipt
from postroom.recipients import State
from postroom.retries import RetryPolicy
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.status import MessageStatus, RecipientStatus, TransportStatus
from postroom.transports.base import Limits, Session, Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from postroom.transports.webhook import WebhookTransport
from postroom.viewing import SpoolView

__all__ = [
    "Address",
    "Attachment",
    "Limits",
    "LmtpTransport",
    "LogTransport",
    "MaildirTransport",
    "MemoryTransport",
    "Message",
    "MessageStatus",
    "PendingReceipt",
    "PostroomError",
    "Priority",
    "Receipt",
    "RecipientStatus",
    "Report",
    "RetryPolicy",
    "Session",
    "Settings",
    "SmtpTransport",
    "SpoolView",
    "Spooler",
    "State",
    "Submission",
    "Transport",
    "TransportStatus",
    "WebhookTransport",
    "__version__",
]

__version__ = version("postroom")
