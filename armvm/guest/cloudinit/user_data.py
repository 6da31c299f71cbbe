"""The user's own user-data, parsed as cloud-init parses it.

Source of the formats: cloud-init's documentation, "User-data formats", and its code, which
detects them (``user_data.convert_string``, ``handlers.type_from_starts_with``).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from email.message import Message
from typing import Any

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.shapes import SHAPES, mergeable
from armvm.guest.cloudinit.yaml_text import load

#: The largest user-data armvm accepts, in characters: real documents have a thousandth of it.
MAX_USER_DATA = 1 << 20
#: The most bytes of that many characters, plus one.
MAX_BYTES = 4 * MAX_USER_DATA + 1
CLOUD_CONFIG = "#cloud-config"
JINJA = "## template: jinja"
_ARCHIVE = "#cloud-config-archive"
#: Prefixes of user-data, in any case and after any white space; the longest first.
_BEGINNINGS = (
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    JINJA,
    "#cloud-boothook",
    "#part-handler",
    CLOUD_CONFIG,
    "#include",
    "#!",
)
#: MIME part types that determine the format, in place of the part's first line.
_DECLARED = {
    "text/cloud-config": CLOUD_CONFIG,
    "text/cloud-config-archive": _ARCHIVE,
    "text/jinja2": JINJA,
}
#: MIME part types for which the part's first line determines the format.
_UNDECLARED = ("text/plain", "text/x-not-multipart", "text/x-shellscript")
_GZIP = b"\x1f\x8b"


def decode(data: bytes) -> str:
    """Return the text of user-data, which may be compressed by gzip.

    Memory is limited, however large the unpacked text is. Raises ConfigError for invalid gzip;
    UnicodeDecodeError for invalid UTF-8.
    """
    if not data.startswith(_GZIP):
        return data.decode()
    found = b""
    try:
        while data and len(found) < MAX_BYTES:  # a gzip file may have several members
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            found += member.decompress(data, MAX_BYTES - len(found))
            if not member.eof and len(found) < MAX_BYTES:
                raise ConfigError("--user-data: truncated gzip file", hint="compress it again")
            data = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise ConfigError(
            f"--user-data: damaged gzip file: {error}", hint="compress it again"
        ) from error
    return _checked_size(found[:MAX_BYTES].decode(errors="replace" if data else "strict"))


def kind(text: str) -> str | None:
    """Return the format prefix of user-data; None if cloud-init does not support the format."""
    beginning = text.lstrip()[:40].lower()
    return next((one for one in _BEGINNINGS if beginning.startswith(one)), None)


def message(text: str) -> Message | None:
    """Return user-data as a MIME message, or None; cloud-init requires MIME-Version in it."""
    from email import message_from_string

    if b"mime-version:" not in text[:4096].encode(errors="replace")[:4096].lower():
        return None
    found = message_from_string(text)
    return found if "MIME-Version" in found else None


def read_user_data(text: str) -> dict[str, Any] | str:
    """Return a cloud-config document as a mapping, or text of another format.

    The mapping is as `mergeable` returns it. Raises ConfigError for anything that cloud-init
    would reject, with the line, and for what cannot be merged with armvm's cloud-config.
    """
    text = _checked_size(text.removeprefix("\ufeff"))  # cloud-init rejects a byte order mark
    if message(text) is None:
        found = kind(text)
        if found == CLOUD_CONFIG:
            return mergeable(_mapping(text))
        text = text.lstrip()  # cloud-init would ignore a script or template after white space
        if found is None:
            first = text.split("\n", 1)[0].rstrip()
            mime = first.lower().startswith("content-type:")
            raise ConfigError(
                "--user-data: unsupported format",
                detail=f"its first line is {first[:80]!a}",
                hint="add the header MIME-Version: 1.0 (required by cloud-init), or begin the file "
                "with #cloud-config"
                if mime
                else "begin the file with the line #cloud-config, or with #! for a script",
            )
    for document in _configs(text):
        _check_part(document)
    return text


def _checked_size(text: str) -> str:
    if len(text) > MAX_USER_DATA:
        raise ConfigError(f"--user-data is larger than {MAX_USER_DATA >> 20} MiB")
    return text


def _mapping(text: str) -> dict[str, Any]:
    document = load(text, "--user-data")
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(
            "--user-data: expected a mapping of cloud-config keys",
            hint="for example: packages: [git]",
        )
    return document


def _configs(text: str) -> Iterator[dict[str, Any]]:
    """Yield the cloud-configs inside user-data of another format, as far as armvm can read it."""
    whole = message(text)
    if whole is None:
        yield from _configs_of(kind(text), text)
        return
    for part in whole.walk():
        if part.get_content_maintype() == "multipart":
            continue
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
        declared = part.get_content_type()
        body = decode(data) if data.startswith(_GZIP) else data.decode(errors="replace")
        undeclared = declared in _UNDECLARED or data.startswith(_GZIP)
        yield from _configs_of(kind(body) if undeclared else _DECLARED.get(declared), body)


def _configs_of(form: str | None, text: str) -> Iterator[dict[str, Any]]:
    if form == CLOUD_CONFIG:
        yield _mapping(text)
    elif form == JINJA:
        try:
            document = load(text, "--user-data")
        except ConfigError:
            return  # only YAML after rendering
        if isinstance(document, dict):
            yield document
    elif form == _ARCHIVE:
        entries = load(text, "--user-data")
        for entry in entries if isinstance(entries, list) else ():
            entry = entry if isinstance(entry, dict) else {"content": entry}
            content, declared = entry.get("content"), entry.get("type")
            if isinstance(content, str):
                inner = _DECLARED.get(declared) if declared else kind(content) or CLOUD_CONFIG
                if inner != _ARCHIVE:
                    yield from _configs_of(inner, content)


def _check_part(document: dict[str, Any]) -> None:
    """Reject keys that cloud-init's rules for archives cannot merge with armvm's part."""
    wanted = mergeable(document)
    for key in SHAPES.keys() & document.keys():
        if key not in wanted or wanted[key] != document[key]:
            shape = "a mapping" if key in ("ssh_keys", "user") else "a list"
            raise ConfigError(
                f"--user-data: {key}: expected {shape}, or armvm's settings are lost",
                detail="cloud-init cannot merge other types in an archive or a template",
                hint=f"write {key} as {shape}, or leave it out",
            )
