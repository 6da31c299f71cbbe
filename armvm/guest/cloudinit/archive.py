"""User-data of several parts: a MIME archive, which cloud-init merges by its own rules.

Source: cloud-init's documentation, "MIME multi-part archive" and "Merging user-data sections".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from armvm.guest.cloudinit.user_data import message

#: How armvm's part, the last one, is merged with the user's parts: their values win, and armvm's
#: lists come before theirs. If a user's part has text where a list is expected, armvm's list wins.
MERGE_HOW = "dict(no_replace,recurse_list)+list(prepend)+str()"
_OURS = "armvm.yaml"


def archive(parts: Sequence[str]) -> MIMEMultipart:
    """Return *parts* as one archive; cloud-init detects each part's format."""
    name = hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]
    whole = MIMEMultipart(boundary=f"armvm-{name}")
    for part in parts:
        whole.attach(message(part) or _text(part, "plain"))
    return whole


def with_ours(theirs: str, ours: str) -> str:
    """Return user-data of any format with armvm's cloud-config merged in."""
    whole = archive([theirs])
    part = _text(ours, "cloud-config")
    part.add_header("Content-Disposition", "attachment", filename=_OURS)
    whole.attach(part)
    return whole.as_string()


def taken_apart(text: str) -> tuple[str, str] | None:
    """Return the user's and armvm's part of the result of `with_ours`; None for anything else."""
    found = _parts(text)
    if found is None:
        return None
    _, theirs, ours = found
    plain = theirs.as_string() if "MIME-Version" in theirs and theirs.is_multipart() else None
    return plain or _plain(theirs), _plain(ours)


def with_changed(text: str, change: Callable[[str], str]) -> str:
    """Return the result of `with_ours` with armvm's part changed; anything else unchanged."""
    found = _parts(text)
    if found is None:
        return text
    whole, theirs, ours = found
    part = _text(change(_plain(ours)), "cloud-config")
    part.add_header("Content-Disposition", "attachment", filename=_OURS)
    whole.set_payload([theirs, part])
    return whole.as_string()


def _parts(text: str) -> tuple[Message, Message, Message] | None:
    whole = message(text)
    parts = whole.get_payload() if whole is not None else None
    if whole is None or not isinstance(parts, list) or len(parts) != 2:
        return None
    theirs, ours = parts
    if not isinstance(theirs, Message) or not isinstance(ours, Message):
        return None
    return (whole, theirs, ours) if ours.get_filename() == _OURS else None


def _text(text: str, subtype: str) -> MIMEText:
    """Return a part: unencoded if a mail allows it, else in base64."""
    plain = text.isascii() and "\r" not in text
    return MIMEText(text, subtype, "us-ascii" if plain else "utf-8")


def _plain(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode() if isinstance(payload, bytes) else ""
