"""A support desk in one file: mail comes in by IMAP, a web page shows it at once, answers go out by SMTP.

    IMAP_HOST=imap.example.org IMAP_USER=desk IMAP_PASSWORD=… SMTP_HOST=mail.example.org SMTP_USER=… SMTP_PASSWORD=… \
    DESK_ADDRESS=desk@example.org python support_desk.py        # then open http://127.0.0.1:8025/

`make example` tries it with mail servers of its own. The web server is that of the standard library, to keep this one
file: in Flask, `app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/events": stream.wsgi})`; in FastAPI,
`app.mount("/events", stream.asgi)`. It has no log-in and listens on this machine only: put yours in front of it.
"""

import os
from collections.abc import Callable, Iterable
from html import escape
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from postroom import (
    EventStream,
    ImapReceiver,
    Message,
    Postprocessed,
    ReceiveRule,
    Settings,
    SmtpTransport,
    Spooler,
    postprocessor,
)
from postroom.errors import PostroomError, UnknownMessage, UsageError
from postroom.events import InboundChanged, NewMessage, RecipientEvent
from postroom.inbound.automatic import automatic_reply
from postroom.inbound.hooks import Incoming

OPEN, DONE = "Support/Open", "Support/Done"
DESK = os.environ.get("DESK_ADDRESS", "desk@example.org")


@postprocessor(name="acknowledge", on_error="skip")
def acknowledge(_message: object, incoming: Incoming) -> Postprocessed:
    """Tell the customer that the mail has come: once a week, and never a machine (RFC 3834)."""
    text = "Thank you for your mail. Somebody will read it and answer.\n"
    return Postprocessed(forward=automatic_reply(incoming, author=DESK, text=text))


def make_spooler() -> Spooler:
    """Return the spooler: where mail comes from, where it is filed, and how answers leave."""
    env = os.environ
    return Spooler(
        env.get("DESK_SPOOL", "desk.db"),
        [
            SmtpTransport(
                env["SMTP_HOST"],
                int(env.get("SMTP_PORT", "587")),
                username=env.get("SMTP_USER"),
                password=env.get("SMTP_PASSWORD"),
                security="none" if env.get("SMTP_TLS") == "none" else "auto",
            )
        ],
        receivers=[
            ImapReceiver(
                env["IMAP_HOST"],
                int(env.get("IMAP_PORT", "993")),
                user=env["IMAP_USER"],
                password=env["IMAP_PASSWORD"],
                tls="none" if env.get("IMAP_TLS") == "none" else "implicit",
            )
        ],
        postprocessors=[acknowledge],
        # Reports of our own answers' failures come to the desk as well, and are filed in "Reports" by themselves.
        rules=[ReceiveRule(OPEN, message_class="IPM.Note")],
        settings=Settings(durable_events="all"),
    )


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Support desk</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #223 }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1rem; color: #667; margin: 2rem 0 .5rem }}
li {{ list-style: none; border: 1px solid #dde; border-radius: .5rem; padding: .6rem 1rem; margin: .4rem 0 }}
ul {{ padding: 0 }} .new {{ border-left: .3rem solid #2a7; font-weight: 600 }} small {{ color: #667; font-weight: 400 }}
pre {{ white-space: pre-wrap; background: #f6f7fa; padding: 1rem; border-radius: .5rem }}
textarea {{ width: 100%; height: 10rem; font: inherit; box-sizing: border-box; padding: .6rem }} a {{ color: #157 }}
.state {{ float: right }} .failed {{ color: #b22 }}</style></head><body>{body}</body></html>"""

LIVE = """<script>
const source = new EventSource("/events?after={cursor}");
const refresh = async () => {{ document.getElementById("lists").innerHTML = await (await fetch("/lists")).text(); }};
for (const name of ["new_message", "inbound_changed", "recipient_relayed", "recipient_delivered",
                    "recipient_deferred", "recipient_failed", "reset"]) source.addEventListener(name, refresh);
</script>"""


class Desk:
    """The web pages, as a WSGI application."""

    def __init__(self, spooler: Spooler) -> None:
        self.spooler = spooler
        self.stream = EventStream(spooler, kinds={NewMessage, InboundChanged, RecipientEvent})

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        if path == "/events":
            return self.stream.wsgi(environ, start)
        status, headers, body = HTTPStatus.OK, [("Content-Type", "text/html; charset=utf-8")], ""
        try:
            if path == "/":
                cursor = (
                    self.spooler.event_log.last
                )  # before the lists are made: what comes meanwhile comes again
                live = LIVE.format(cursor=cursor)
                body = PAGE.format(body=f'<h1>Support desk</h1><div id="lists">{self.lists()}</div>{live}')
            elif path == "/lists":
                body = self.lists()
            elif path.startswith("/ticket/") and environ["REQUEST_METHOD"] == "POST":
                self.answer(path.removeprefix("/ticket/"), environ)
                status, headers = HTTPStatus.SEE_OTHER, [("Location", "/")]
            elif path.startswith("/ticket/"):
                body = self.ticket(path.removeprefix("/ticket/"))
            else:
                status = HTTPStatus.NOT_FOUND
        except UnknownMessage:
            status = HTTPStatus.NOT_FOUND
        except PermissionError:
            status = HTTPStatus.FORBIDDEN
        except PostroomError as error:
            # Nothing was sent: the error says what is wrong.
            status, body = HTTPStatus.BAD_REQUEST, PAGE.format(body=f"<p>{escape(str(error))}</p>")
        start(f"{status.value} {status.phrase}", headers)
        return [(body or status.phrase).encode()]

    def lists(self) -> str:
        """Return both lists of tickets as HTML."""
        parts: list[str] = []
        for folder, title in ((OPEN, "Open"), (DONE, "Done")):
            items = "".join(
                f'<li class="{"" if ticket.seen else "new"}">{self.state(ticket.tags)}'
                f'<a href="/ticket/{ticket.id}">{escape(ticket.subject or "(no subject)")}</a>'
                f"<br><small>{escape(ticket.author)}</small></li>"
                for ticket in self.spooler.mail.list(folder)
            )
            parts.append(f'<h2>{title}</h2><ul class="{title.lower()}">{items or "<small>none</small>"}</ul>')
        return "".join(parts)

    def state(self, tags: Iterable[str]) -> str:
        """Return what became of the answer to a ticket."""
        for tag in tags:
            if tag.startswith("answer:"):
                recipient = self.spooler.status(tag.removeprefix("answer:")).recipients[0]
                return f'<small class="state {recipient.state.label}">answer {recipient.state.label}</small>'
        return ""

    def ticket(self, ticket_id: str) -> str:
        """Return the page of a ticket, which is read by that."""
        opened = self.spooler.mail.open(ticket_id)
        self.spooler.mail.mark_read(ticket_id)
        quoted = "".join(f"> {line}\n" for line in opened.text().splitlines())
        # The text only: the HTML of strangers is not for this page.
        return PAGE.format(
            body=f'<p><a href="/">All tickets</a></p><h1>{escape(opened.message.subject)}</h1>'
            f"<p>{escape(opened.message.author)}</p><pre>{escape(opened.text())}</pre>"
            f'<form method="post"><textarea name="text" required>\n\n\n{escape(quoted)}</textarea>'
            "<p><button>Send the answer</button></p></form>"
        )

    def answer(self, ticket_id: str, environ: dict[str, Any]) -> None:
        """Send an answer; whatever happens in between, a ticket gets one."""
        if environ.get("HTTP_ORIGIN", "") != f"http://{environ['HTTP_HOST']}":
            raise PermissionError("the form was sent from another site")
        form = parse_qs(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode())
        text = form.get("text", [""])[0].replace("\r\n", "\n")
        if not text.strip():
            raise UsageError("text", "it is empty", "write an answer")
        ticket = self.spooler.mail.get(ticket_id)
        receipt = self.spooler.submit(
            Message(
                subject=ticket.subject
                if ticket.subject.lower().startswith("re:")
                else f"Re: {ticket.subject}",
                text=text,
                sender=DESK,
                to=[ticket.author],
                headers={"In-Reply-To": ticket.message_id, "References": ticket.message_id}
                if ticket.message_id
                else {},
            ),
            idempotency_key=f"answer:{ticket_id}",
        )
        # It is durable now. Killed before this line, the ticket is still open, and the same answer is not sent twice.
        self.spooler.mail.tag(ticket_id, [f"answer:{receipt.id}"])
        self.spooler.mail.mark_answered(ticket_id)
        self.spooler.mail.move(ticket_id, DONE)


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request: each page keeps one open for its events."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


def main() -> None:
    """Run until Ctrl-C."""
    port = int(os.environ.get("DESK_PORT", "8025"))
    with make_spooler() as spooler, make_server("127.0.0.1", port, Desk(spooler), Server, Quiet) as server:
        for folder in (OPEN, DONE):
            spooler.mail.create(folder)
        print(f"The desk is open: http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("The desk closes.")


if __name__ == "__main__":
    main()
