"""User and password for a registry, from the files of ``docker login`` and ``podman login``.

Sources: docker's cli/config/configfile and docker-credential-helpers; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armvm.base import process
from armvm.base.errors import CommandFailed, MissingCapability
from armvm.images.oci.reference import DOCKER_HUB

#: Seconds for a credential helper, which may ask the user.
_PATIENCE = 120.0
_HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")


def credentials(host: str) -> tuple[str, str] | None:
    """Return user and password for a registry; None if none are known."""
    names = [host, *(["https://index.docker.io/v1/"] if host in DOCKER_HUB else [])]
    for document in _documents():
        auths, helpers = document.get("auths"), document.get("credHelpers")
        for name in names:
            helper = helpers.get(name) if isinstance(helpers, dict) else None
            if found := _ask(helper or document.get("credsStore"), name):
                return found
            entry = auths.get(name) if isinstance(auths, dict) else None
            if found := _decoded(entry):
                return found
    return None


def _documents() -> Iterator[dict[str, Any]]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Source: containers/image, pkg/docker/config: defaultPerUIDPathFormat.
    podman = f"{runtime}/containers" if runtime else f"/run/containers/{os.getuid()}"
    places = [
        os.environ.get("REGISTRY_AUTH_FILE"),
        str(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"),
        f"{podman}/auth.json",
    ]
    for place in places:
        if place is None:
            continue
        try:
            document = json.loads(Path(place).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document


def _decoded(entry: object) -> tuple[str, str] | None:
    text = entry.get("auth") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text:
        return None
    try:
        user, colon, password = base64.b64decode(text).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _ask(helper: object, name: str) -> tuple[str, str] | None:
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        return None
    try:
        told = process.run(
            [f"docker-credential-{helper}", "get"], input=name.encode(), timeout=_PATIENCE
        )
        answer = json.loads(told.stdout)
        return str(answer["Username"]), str(answer["Secret"])
    except (CommandFailed, MissingCapability, ValueError, LookupError, TypeError):
        return None  # as docker does: the registry may not require any
