"""User-data of several parts: a MIME archive, which cloud-init merges by rules.

Source: cloud-init's documentation, "MIME multi-part archive" and "Merging user-data sections".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from armvm.guest.cloudinit.user_data import message

#: How armvm's part, the last one, is merged with what the user's parts made: their values win,
#: and armvm's lists come before theirs. In text that is no list where there should be one,
#: armvm's list wins.
MERGE_HOW = "dict(no_replace,recurse_list)+list(prepend)+str()"
_OURS = "armvm.yaml"


def archive(parts: Sequence[str]) -> MIMEMultipart:
    """Return user-data of *parts*, whose formats cloud-init detects as it would one by one."""
    name = hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]
    whole = MIMEMultipart(boundary=f"armvm-{name}")
    for part in parts:
        whole.attach(message(part) or _text(part, "plain"))
    return whole


def with_ours(theirs: str, ours: str) -> str:
    """Return the user's user-data, whatever its format, with armvm's cloud-config merged in."""
    whole = archive([theirs])
    part = _text(ours, "cloud-config")
    part.add_header("Content-Disposition", "attachment", filename=_OURS)
    whole.attach(part)
    return whole.as_string()


def taken_apart(text: str) -> tuple[str, str] | None:
    """Return the user's and armvm's part of what `with_ours` made; None for anything else."""
    found = _parts(text)
    if found is None:
        return None
    _, theirs, ours = found
    plain = theirs.as_string() if "MIME-Version" in theirs and theirs.is_multipart() else None
    return plain or _plain(theirs), _plain(ours)


def with_changed(text: str, change: Callable[[str], str]) -> str:
    """Return what `with_ours` made with armvm's part changed; anything else as it is."""
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
    """Return a part: as it is where a mail may be so, else in base64."""
    plain = text.isascii() and "\r" not in text
    return MIMEText(text, subtype, "us-ascii" if plain else "utf-8")


def _plain(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode() if isinstance(payload, bytes) else ""
