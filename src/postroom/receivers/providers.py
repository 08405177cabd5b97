"""The providers whose webhooks Postroom reads; see :mod:`postroom.receivers.http` for where they come in.

Reports: :class:`SesReports`, :class:`SendGridReports`, :class:`MailgunReports`, :class:`PostmarkReports`,
:class:`TwilioReports`, and :class:`StandardReports` for one's own. Messages: :class:`SesInbound`,
:class:`MailgunInbound`, :class:`PostedMessages`. Another one is a :class:`Provider` of your own.
"""

from postroom.receivers.providers_base import Malformed, Provider, Unauthorized, Unavailable
from postroom.receivers.providers_mailgun import MailgunInbound, MailgunReports
from postroom.receivers.providers_postmark import PostmarkReports
from postroom.receivers.providers_sendgrid import SendGridReports
from postroom.receivers.providers_ses import SesInbound, SesReports
from postroom.receivers.providers_sns import https_get
from postroom.receivers.providers_standard import PostedMessages, StandardReports
from postroom.receivers.providers_twilio import TwilioReports

__all__ = [
    "MailgunInbound",
    "MailgunReports",
    "Malformed",
    "PostedMessages",
    "PostmarkReports",
    "Provider",
    "SendGridReports",
    "SesInbound",
    "SesReports",
    "StandardReports",
    "TwilioReports",
    "Unauthorized",
    "Unavailable",
    "https_get",
]
