"""Shell completion from live data. A failed lookup completes to nothing, without a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer


def _silently(look: Callable[[], list[str]], incomplete: str) -> list[str]:
    from armvm.base.errors import ArmvmError

    try:
        return [name for name in look() if name.startswith(incomplete)]
    except ArmvmError:
        return []


def _host(ctx: typer.Context) -> Any:
    """Open the connection that the words before the cursor choose."""
    from armvm.cli.context import open_host
    from armvm.cli.on import uri_on

    on, connect = ctx.params.get("on"), ctx.params.get("connect")
    return open_host(connect if on is None else uri_on(on, connect))


def machines(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of machines."""

    def look() -> list[str]:
        from armvm.provision.connect import machine_names

        return machine_names(_host(ctx))

    return _silently(look, incomplete)


def machine_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of machines with a colon, for `armvm cp`; the shell completes paths."""
    return [] if "/" in incomplete else [f"{name}:" for name in machines(ctx, incomplete)]


def goldens(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of goldens."""

    def look() -> list[str]:
        from armvm.provision.golden.goldens import names

        return names(_host(ctx))

    return _silently(look, incomplete)


def hosts(incomplete: str) -> list[str]:
    """Complete the names of hosts."""

    def look() -> list[str]:
        from armvm.base.paths import config_files
        from armvm.settings.hosts import hosts_in

        return list(hosts_in(config_files()))

    return _silently(look, incomplete)


def hosts_and_queues(incomplete: str) -> list[str]:
    """Complete the names of hosts and queues."""

    def look() -> list[str]:
        from armvm.base.paths import config_files
        from armvm.settings.hosts import hosts_in
        from armvm.settings.queues import queues_in

        return [*hosts_in(config_files()), *queues_in(config_files())]

    return _silently(look, incomplete)


def hosts_and_clouds(incomplete: str) -> list[str]:
    """Complete the names of hosts and clouds."""

    def look() -> list[str]:
        from armvm.base.paths import config_files
        from armvm.settings.clouds import clouds_in
        from armvm.settings.hosts import hosts_in

        return [*hosts_in(config_files()), *clouds_in(config_files())]

    return _silently(look, incomplete)


def networks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the values of ``--network``: names, ``user``, and the prefixes of devices."""

    def look() -> list[str]:
        from armvm.provision.connect import network_names

        return ["user", *network_names(_host(ctx)), "bridge=", "macvtap="]

    return _silently(look, incomplete)


def libvirt_networks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of networks."""

    def look() -> list[str]:
        from armvm.provision.connect import network_names

        return network_names(_host(ctx))

    return _silently(look, incomplete)


def images(incomplete: str) -> list[str]:
    """Complete image references: those of the catalogs and those in the cache."""

    def look() -> list[str]:
        from armvm.provision.image.list_ import known_references

        return known_references()

    return _silently(look, incomplete)


def presets(incomplete: str) -> list[str]:
    """Complete the names of presets."""
    from armvm.settings.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def verify(incomplete: str) -> list[str]:
    """Complete the levels of image verification."""
    from armvm.settings.verify import Verify

    return [one.value for one in Verify if one.value.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Complete the names of images that armvm can build."""
    from armvm.provision.image.local import usual_references

    names = [one.removeprefix("local:") for one in usual_references()]
    return [name for name in names if name.startswith(incomplete)]


def kernels(incomplete: str) -> list[str]:
    """Complete the kernels for images that armvm builds."""
    from armvm.provision.image.local import kernels as known

    return [name for name in known() if name.startswith(incomplete)]


def topics(incomplete: str) -> list[str]:
    """Complete the topics of `armvm explain`."""
    from armvm.provision.inspect.pages import topics as all_topics

    return [one for one in all_topics() if one.startswith(incomplete)]


def snapshots(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of all machines' snapshots."""

    def look() -> list[str]:
        from armvm.provision.connect import snapshot_names

        return snapshot_names(_host(ctx))

    return _silently(look, incomplete)


def disks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of a machine's disks that can be removed or grown."""

    def look() -> list[str]:
        from armvm.provision.connect import disk_names

        return disk_names(_host(ctx), ctx.params.get("name"))

    return _silently(look, incomplete)


def architectures(incomplete: str) -> list[str]:
    """Complete the architectures with binfmt handlers."""
    from armvm.provision.binfmt.status import architecture_names

    return [name for name in architecture_names() if name.startswith(incomplete)]


def docker_images(incomplete: str) -> list[str]:
    """Complete the names of docker's images."""
    return _engine_images("docker", incomplete)


def podman_images(incomplete: str) -> list[str]:
    """Complete the names of podman's images."""
    return _engine_images("podman", incomplete)


def _engine_images(engine: str, incomplete: str) -> list[str]:
    def look() -> list[str]:
        from armvm.provision.binfmt.explain_image import Engine, names

        return names(Engine(engine))

    return _silently(look, incomplete)
