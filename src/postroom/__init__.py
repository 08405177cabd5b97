"""Postroom: a store-and-forward message spooler that a Python server can embed."""

from importlib.metadata import version

from postroom.addresses import Address
from postroom.bulk import BulkResult, Preview
from postroom.composing import Attachment, Message
from postroom.envelope_recipients import Recipient
from postroom.envelopes import Priority, Report, Submission
from postroom.errors import PostroomError
from postroom.flushing import Flushed
from postroom.hooks import Preprocessor, SentHook, preprocessor, sent_hook
from postroom.list_files import ListFile
from postroom.preprocessing.dkim import DkimSigner
from postroom.preprocessing.dkim_keys import DkimKey
from postroom.preprocessing.footers import Footer
from postroom.receipts import PendingReceipt, Receipt
from postroom.recipients import State
from postroom.replies import ReplyRow
from postroom.reports.facts import DeliveryReport
from postroom.reports.policy import ReportPolicy
from postroom.reports.wording import TemplateWording
from postroom.retries import RetryPolicies, RetryPolicy
from postroom.selections import Selection
from postroom.sentitems import Erasure, Exported, Found, SentItem
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.status import MessageStatus, RecipientStatus, TransportStatus
from postroom.stores.base import Action, Order
from postroom.throttles import DestinationLimits, Rate, Throttle
from postroom.transports.base import Limits, Session, Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from postroom.transports.webhook import WebhookTransport
from postroom.viewing import SpoolView
from postroom.windows import DeliveryWindow

__all__ = [
    "Action",
    "Address",
    "Attachment",
    "BulkResult",
    "DeliveryReport",
    "DeliveryWindow",
    "DestinationLimits",
    "DkimKey",
    "DkimSigner",
    "Erasure",
    "Exported",
    "Flushed",
    "Footer",
    "Found",
    "Limits",
    "ListFile",
    "LmtpTransport",
    "LogTransport",
    "MaildirTransport",
    "MemoryTransport",
    "Message",
    "MessageStatus",
    "Order",
    "PendingReceipt",
    "PostroomError",
    "Preprocessor",
    "Preview",
    "Priority",
    "Rate",
    "Receipt",
    "Recipient",
    "RecipientStatus",
    "ReplyRow",
    "Report",
    "ReportPolicy",
    "RetryPolicies",
    "RetryPolicy",
    "Selection",
    "SentHook",
    "SentItem",
    "Session",
    "Settings",
    "SmtpTransport",
    "SpoolView",
    "Spooler",
    "State",
    "Submission",
    "TemplateWording",
    "Throttle",
    "Transport",
    "TransportStatus",
    "WebhookTransport",
    "__version__",
    "preprocessor",
    "sent_hook",
]

__version__ = version("postroom")
