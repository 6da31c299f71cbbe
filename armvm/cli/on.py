"""What ``--on`` and ARMVM_ON name: a host's URI or a cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvm.base.errors import UsageError
    from armvm.settings.clouds import Cloud


def cloud_on(on: str | None, connect: str | None) -> Cloud | None:
    """Return the cloud that *on*, or else the environment, names; None if that is no cloud's name.

    Raises UsageError if *connect* was given beside *on*.
    """
    import os

    from armvm.settings.hosts import VARIABLE

    if on is not None:
        refuse_both(connect)
    name = on or ("" if connect is not None else os.environ.get(VARIABLE, "").strip())
    if not name:
        return None
    from armvm.base.paths import config_files
    from armvm.settings.clouds import find_cloud

    return find_cloud(name, config_files())


def no_cloud(verb: str, cloud: str) -> UsageError:
    """Return the error for a command that cannot be used on a cloud."""
    from armvm.base.errors import UsageError
    from armvm.cli.no_cloud import reason

    why, hint = reason(verb)
    return UsageError(f"armvm {verb} cannot be used on {cloud}, a cloud: {why}", hint=hint)


def uri_on(on: str, connect: str | None, other: str | None = None) -> str:
    """Return the URI of the host *on*. Raises UsageError if *connect* was given too, NotFound.

    *other* is as for `find_host`.
    """
    from armvm.base.paths import config_files
    from armvm.settings.hosts import find_host

    refuse_both(connect)
    return find_host(on, config_files(), other).uri


def refuse_both(connect: str | None) -> None:
    """Raise UsageError if ``--connect`` was given beside ``--on``."""
    from armvm.base.errors import UsageError

    if connect is not None:
        raise UsageError(
            "--on and --connect cannot be used together",
            hint="--on takes a name in [hosts] of config.toml, --connect a libvirt URI",
        )
