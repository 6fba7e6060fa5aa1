"""Where people are told that something waits for them: `Webhook`, `Slack`, `Email`. Declared data.

`Inbox(notify=[...])` takes them, `roadworthy.messengers` sends by them, in threads. Invariant: none
of the user's words leave unless the deployer said `words=True`; no redirect is followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import urlsplit

from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled

NoticeEvent: TypeAlias = Literal[
    "raised", "escalated", "overdue", "silent", "user_said", "resolved"
]
EVENTS: tuple[NoticeEvent, ...] = get_args(NoticeEvent)
SECONDS = 10.0  # one attempt
_SAID: Mapping[str, str] = {
    "raised": "needs a person",
    "escalated": "was escalated further",
    "overdue": "is overdue: nobody took it",
    "silent": "is in the queue again: its owner was silent",
    "user_said": "has a new message of the user",
    "resolved": "is resolved",
}


class NotSent(Exception):
    """An attempt that did not arrive, and why; without addresses or secrets."""


class Channel(Protocol):
    """One way to tell people. name: tells it from others of the same inbox."""

    @property
    def name(self) -> str: ...

    @property
    def events(self) -> Sequence[NoticeEvent]: ...

    @property
    def words(self) -> bool: ...

    def send(self, notice: str, body: Mapping[str, Any], at: int) -> None:
        """Blocks. notice: its id, the same at each attempt. at: seconds since 1970.
        Raises: NotSent."""


@spelled
@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A POST of JSON to your own address. secret: signs it, as the Standard Webhooks say: header
    `webhook-signature`, HMAC-SHA256 over id, timestamp and body; `webhook-id` is the same at each
    attempt. words: also what was written. Raises: DeclarationError.
    """

    url: str
    secret: str
    events: Sequence[NoticeEvent] = EVENTS
    words: bool = False
    name: str = "webhook"

    def __post_init__(self) -> None:
        _check(self.name, self.events, self.url)
        if not self.secret:
            raise DeclarationError(f"Webhook {self.name!r}: secret= signs what is sent; give one.")

    def send(self, notice: str, body: Mapping[str, Any], at: int) -> None:
        """One attempt. Raises: NotSent."""
        data = json.dumps(body).encode()
        signed = f"{notice}.{at}.".encode() + data
        digest = hmac.new(_key(self.secret), signed, hashlib.sha256).digest()
        headers = {
            "webhook-id": notice,
            "webhook-timestamp": str(at),
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }
        _post(self.url, data, headers)


@spelled
@dataclass(frozen=True, kw_only=True)
class Slack:
    """An incoming webhook of Slack, or of what understands the same. Raises: DeclarationError."""

    url: str
    events: Sequence[NoticeEvent] = EVENTS
    words: bool = False
    name: str = "slack"

    def __post_init__(self) -> None:
        _check(self.name, self.events, self.url)

    def send(self, notice: str, body: Mapping[str, Any], at: int) -> None:
        """One attempt. Raises: NotSent."""
        del at
        _post(self.url, json.dumps({"text": told(body)}).encode(), {"webhook-id": notice})


@spelled
@dataclass(frozen=True, kw_only=True)
class Email:
    """A mail over SMTP. tls: "starttls", "tls" from the first byte, or "none". user, password:
    where the server wants them. Raises: DeclarationError.
    """

    host: str
    sender: str
    to: Sequence[str]
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""
    events: Sequence[NoticeEvent] = ("raised", "escalated", "overdue")
    words: bool = False
    name: str = "email"

    def __post_init__(self) -> None:
        _check(self.name, self.events)
        if isinstance(self.to, str) or not self.to:
            raise DeclarationError(f"Email {self.name!r}: to={self.to!r}: a list of addresses.")
        if self.tls not in ("starttls", "tls", "none"):
            raise DeclarationError(f"Email {self.name!r}: tls={self.tls!r}: starttls, tls or none.")
        if self.user and self.tls == "none":
            raise DeclarationError(f"Email {self.name!r}: a password is not sent without tls.")

    def send(self, notice: str, body: Mapping[str, Any], at: int) -> None:
        """One attempt. Raises: NotSent."""
        del at
        message = EmailMessage()
        message["Subject"] = f"{body['agent']}: {_SAID[body['event']]}"
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Message-ID"] = f"<{notice}@roadworthy>"
        message.set_content(told(body))
        try:
            with self._connected() as server:
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(f"{type(error).__name__} of the mail server") from None

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self.tls == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=SECONDS, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        if self.tls == "starttls":
            server.starttls(context=context)
        if self.user:
            server.login(self.user, self.password)
        return server


def told(body: Mapping[str, Any]) -> str:
    """A notice in plain words."""
    lines = [f"{body['escalation']} ({body['trigger']}, queue {body['queue']}) "]
    lines[0] += f"{_SAID[body['event']]}."
    lines += [str(body[name]) for name in ("reason", "message", "link") if body.get(name)]
    return "\n".join(lines)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """The declared address or none."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _post(url: str, data: bytes, headers: Mapping[str, str]) -> None:
    sent = {"content-type": "application/json", "user-agent": "roadworthy", **headers}
    request = urllib.request.Request(url, data, sent, method="POST")  # noqa: S310 - checked: http(s)
    try:
        with _OPENER.open(request, timeout=SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise NotSent(f"it answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise NotSent(f"{type(error).__name__}: it cannot be reached") from None


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"))
    return secret.encode()


def _check(name: str, events: Sequence[str], url: str = "https://x") -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DeclarationError(f"notify {name!r}: url={url!r} is no http or https address.")
    unknown = [event for event in events if event not in EVENTS]
    if unknown or isinstance(events, str):
        raise DeclarationError(f"notify {name!r}: events={events!r}: of {', '.join(EVENTS)}.")
