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
from postroom.inbound.hooks import Postprocessed, Postprocessor, postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.list_files import ListFile
from postroom.notifying.event_stream import EventStream
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.preprocessing.dkim import DkimSigner
from postroom.preprocessing.dkim_keys import DkimKey
from postroom.preprocessing.footers import Footer
from postroom.receipts import PendingReceipt, Receipt
from postroom.receivers.http import InboundEndpoint, ReportEndpoint
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.listener import SmtpListener
from postroom.receivers.maildir import MaildirReceiver
from postroom.receivers.memory import MemoryReceiver
from postroom.receivers.pop3 import Pop3Receiver
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
from postroom.tokens import Tokens
from postroom.transports.apprise import AppriseTransport
from postroom.transports.base import Limits, Session, Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.mbox import MboxTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.mx import MxTransport
from postroom.transports.nats import NatsTransport
from postroom.transports.pipe import PipeTransport, SendmailTransport
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from postroom.transports.webhook import WebhookTransport
from postroom.viewing import SpoolView
from postroom.windows import DeliveryWindow

__all__ = [
    "Action",
    "Address",
    "AppriseTransport",
    "Attachment",
    "BulkResult",
    "DeliveryReport",
    "DeliveryWindow",
    "DestinationLimits",
    "DkimKey",
    "DkimSigner",
    "Erasure",
    "EventStream",
    "Exported",
    "Flushed",
    "Footer",
    "Found",
    "ImapReceiver",
    "InboundEndpoint",
    "Limits",
    "ListFile",
    "LmtpTransport",
    "LogTransport",
    "MaildirReceiver",
    "MaildirTransport",
    "MboxTransport",
    "MemoryReceiver",
    "MemoryTransport",
    "Message",
    "MessageStatus",
    "MxTransport",
    "NatsTransport",
    "Order",
    "PendingReceipt",
    "PipeTransport",
    "Pop3Receiver",
    "Postprocessed",
    "Postprocessor",
    "PostroomError",
    "Preprocessor",
    "Preview",
    "Priority",
    "Rate",
    "Receipt",
    "ReceivePolicy",
    "ReceiveRule",
    "Recipient",
    "RecipientStatus",
    "ReplyRow",
    "Report",
    "ReportEndpoint",
    "ReportPolicy",
    "RetryPolicies",
    "RetryPolicy",
    "Selection",
    "SendmailTransport",
    "SentHook",
    "SentItem",
    "Session",
    "Settings",
    "SmtpListener",
    "SmtpTransport",
    "SpoolView",
    "Spooler",
    "State",
    "Submission",
    "TemplateWording",
    "Throttle",
    "Tokens",
    "Transport",
    "TransportStatus",
    "WebhookSubscriber",
    "WebhookTransport",
    "__version__",
    "postprocessor",
    "preprocessor",
    "sent_hook",
]

__version__ = version("postroom")
