"""The connection to a cloud, and what its errors mean to users.

openstacksdk is optional. Texts in a cloud's answers are untrusted: `said` makes them printable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    ConnectFailed,
    HostError,
    MissingCapability,
    NotFound,
    PermissionDenied,
)
from armvm.guest.boot.serial import clean
from armvm.settings.clouds import Cloud

T = TypeVar("T")

#: Seconds for the cloud's answer to a request; an image's upload may take longer.
TIMEOUT = 120.0
#: Seconds before each further attempt of a request whose connection was lost.
PAUSES = (1.0, 5.0, 15.0)
#: HTTP statuses of a proxy whose service does not answer (RFC 9110, section 15.6).
_LOST = (502, 503, 504)
#: What openstacksdk raises for a file or an answer with other types than it expects.
_UNREADABLE = (AttributeError, LookupError, OSError, TypeError, ValueError)
#: Length of a cloud's text in messages, in characters.
_LONGEST = 500


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An open connection: the cloud's settings, and openstacksdk's connection."""

    cloud: Cloud
    api: Any


def connect(cloud: Cloud) -> Connection:
    """Open a connection with the credentials in clouds.yaml.

    Raises MissingCapability without openstacksdk, ConfigError if clouds.yaml lacks the cloud or its
    credentials, ConnectFailed, and PermissionDenied for rejected credentials.
    """
    try:
        import openstack
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import ConfigException
    except ImportError as error:
        raise MissingCapability(
            f"{cloud.name} is an OpenStack cloud: openstacksdk is not installed",
            detail=None if isinstance(error, ModuleNotFoundError) else said(str(error)),
            hint="in armvm's environment: pip install openstacksdk "
            "(pipx inject armvm openstacksdk)",
        ) from error
    try:
        api: Any = openstack.connect(cloud=cloud.openstack, app_name="armvm", api_timeout=TIMEOUT)
    except (ConfigException, ClientException, *_UNREADABLE) as error:
        why = said(str(error)) or type(error).__name__
        if isinstance(error, _UNREADABLE):
            why = f"clouds.yaml is invalid: {why}"
        raise ConfigError(
            f"{cloud.place}: [clouds] {cloud.name}: {why}",
            hint=f"clouds.yaml needs an entry {cloud.openstack} with auth: "
            "./clouds.yaml, ~/.config/openstack/clouds.yaml or /etc/openstack/clouds.yaml",
        ) from error
    ask(cloud, "logging in", api.session.get_token, PAUSES[:1])
    return Connection(cloud=cloud, api=api)


def ask(
    cloud: Cloud, doing: str, request: Callable[[], T], pauses: Sequence[float] | None = None
) -> T:
    """Return the answer to a request that changes nothing; repeat it if the connection is lost.

    A boot takes minutes, and one lost answer must not end the wait for it.
    """
    for pause in PAUSES if pauses is None else pauses:
        try:
            with answers(cloud, doing):
                return request()
        except ConnectFailed:
            time.sleep(pause)
    with answers(cloud, doing):
        return request()


@contextmanager
def answers(cloud: Cloud, doing: str) -> Iterator[None]:
    """Translate the errors of requests to a cloud; *doing* says what they are for.

    Sources: openstacksdk's openstack.exceptions and keystoneauth1.exceptions; Nova's "REST API
    error codes": an exceeded quota is a 403, or a 413 in older versions.
    """
    from keystoneauth1 import exceptions as auth
    from openstack import exceptions as sdk

    failed = f"cloud {cloud.name}: {doing} failed"
    try:
        yield
    except ArmvmError:
        raise
    except auth.Unauthorized as error:
        raise PermissionDenied(
            f"cloud {cloud.name} rejected the credentials",
            detail=said(str(error)),
            hint=f"check the entry {cloud.openstack} in clouds.yaml",
        ) from error
    except (auth.MissingRequiredOptions, auth.NoMatchingPlugin) as error:
        raise ConfigError(
            f"cloud {cloud.name}: the credentials are incomplete",
            detail=said(str(error)),
            hint=f"check the entry {cloud.openstack} in clouds.yaml",
        ) from error
    except (sdk.HttpException, auth.HttpError) as error:
        raise _refused(failed, error) from error
    except (auth.ConnectionError, auth.DiscoveryFailure, auth.EndpointNotFound) as error:
        raise ConnectFailed(
            f"cloud {cloud.name} does not answer",
            detail=said(str(error)),
            hint=f"check auth_url of {cloud.openstack} in clouds.yaml, and the network",
        ) from error
    except (sdk.SDKException, auth.ClientException, *_UNREADABLE) as error:
        text = said(str(error)) or type(error).__name__
        raise HostError(failed, detail=text, hint="try again") from error


def said(text: str) -> str:
    """Return a cloud's text as one printable line of limited length."""
    plain = " ".join(clean(text[: 8 * _LONGEST].encode(errors="replace")).split())
    plain = "".join(one if one.isprintable() else "?" for one in plain)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"


def _refused(failed: str, error: Any) -> ArmvmError:
    """Return the error for an HTTP status."""
    code = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    details = getattr(error, "details", None)
    text = said(str(details or error))
    if code in _LOST:
        return ConnectFailed(failed, detail=f"HTTP status {code}: {text}", hint="try again later")
    if code in (403, 413) and ("quota" in text.lower() or code == 413):
        return HostError(
            f"{failed}: the quota is exceeded",
            detail=text,
            hint="delete servers, use a smaller flavor, or ask for a higher quota: "
            "openstack quota show --usage",
        )
    if code in (401, 403):
        return PermissionDenied(failed, detail=text, hint="check your role in the project")
    if code == 404:
        return NotFound(failed, detail=text)
    if code == 409:
        return Conflict(failed, detail=text, hint="another task may be running: try again")
    if code == 400:
        return HostError(f"{failed}: the request is invalid", detail=text)
    return HostError(failed, detail=f"HTTP status {code}: {text}" if code else text)
