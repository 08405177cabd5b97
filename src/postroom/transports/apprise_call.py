"""Calling Apprise, with an end: it takes neither a deadline that ends a connection nor an interruption."""

import threading
import warnings
from typing import Any, Final

import apprise
from apprise.attachment.memory import AttachMemory

from postroom.transports.apprise_notice import Notice, Said

__all__ = ["Call"]

# Its annotations leave out what its dictionaries hold, and AttachMemory has none.
_APPRISE: Final[Any] = apprise.Apprise
_ATTACH: Final[Any] = AttachMemory

# No tasks, no pool of threads that stay, no files: one service, called in the thread that waits for it.
_ASSET: Final = apprise.AppriseAsset(
    async_mode=False, service_timeout=0, app_id="Postroom", app_desc="Postroom", storage_path=None
)


def _load_plugins() -> None:
    """Have all plugins imported now, by one thread, instead of by the first couriers that notify."""
    with warnings.catch_warnings():
        # What some of them import is deprecated in some version of Python: nothing that the host could mend.
        warnings.simplefilter("ignore")
        _APPRISE.instantiate("json://127.0.0.1", asset=_ASSET)


_load_plugins()


class Call:
    """Calls Apprise, one notification at a time. Not thread-safe, except ``abort``."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._aborted = False

    def notify(self, url: str, notice: Notice, timeout: float) -> Said:
        """Notify one service, and wait for the answer for ``timeout`` seconds at most.

        A call that is given up goes on in its own daemon thread until the service's own time-outs end it.
        """
        answer: list[Said] = []

        def work() -> None:
            try:
                said = _notify(url, notice)
            except Exception as error:  # noqa: BLE001 - a plugin's bug is a refusal with a reason
                said = Said("no", f"{type(error).__name__}: {error}")
            with self._changed:
                answer.append(said)
                self._changed.notify_all()

        with self._changed:
            if self._aborted:
                return Said("silence", "given up before it was tried")
            threading.Thread(target=work, name="postroom-apprise", daemon=True).start()
            self._changed.wait_for(lambda: answer or self._aborted, timeout)
            if answer:
                return answer[0]
            return Said("silence", "given up" if self._aborted else f"no answer in {timeout:g} seconds")

    def abort(self) -> None:
        """Stop waiting, from any thread; later calls are not made. Never raises."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()


def _notify(url: str, notice: Notice) -> Said:
    service = _APPRISE.instantiate(url, asset=_ASSET)
    if service is None:
        return Said("unusable")
    attached = [
        _ATTACH(each.content, name=each.name, mimetype=each.content_type) for each in notice.attachments
    ]
    notifier = _APPRISE(asset=_ASSET)
    notifier.add(service)
    form = apprise.NotifyFormat.HTML if notice.is_html else apprise.NotifyFormat.TEXT
    with notifier.notify(
        body=notice.body, title=notice.title, body_format=form, attach=attached or None
    ) as result:
        text = " ".join(entry.message for entry in result.logs())
        return Said("yes" if result else "no", text)
