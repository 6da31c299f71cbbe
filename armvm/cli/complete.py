"""Shell completion from live data. What cannot be looked up completes to nothing, silently."""

from __future__ import annotations

from collections.abc import Callable


def _silently(look: Callable[[], list[str]], incomplete: str) -> list[str]:
    from armvm.base.errors import ArmvmError

    try:
        return [name for name in look() if name.startswith(incomplete)]
    except ArmvmError:
        return []


def machines(incomplete: str) -> list[str]:
    """Complete machines' names."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.connect import machine_names

        return machine_names(open_host(None))

    return _silently(look, incomplete)


def machine_paths(incomplete: str) -> list[str]:
    """Complete machines' names with a colon, as `armvm cp` takes them; a path completes itself."""
    return [] if "/" in incomplete else [f"{name}:" for name in machines(incomplete)]


def goldens(incomplete: str) -> list[str]:
    """Complete goldens' names."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.golden.goldens import names

        return names(open_host(None))

    return _silently(look, incomplete)


def networks(incomplete: str) -> list[str]:
    """Complete networks' names, and the word for user networking."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.connect import network_names

        return ["user", *network_names(open_host(None))]

    return _silently(look, incomplete)


def images(incomplete: str) -> list[str]:
    """Complete image references: the catalogs' usual ones, and what is cached."""

    def look() -> list[str]:
        from armvm.provision.image.list_ import known_references

        return known_references()

    return _silently(look, incomplete)


def presets(incomplete: str) -> list[str]:
    """Complete presets' names."""
    from armvm.settings.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def verify(incomplete: str) -> list[str]:
    """Complete what may have to vouch for an image."""
    from armvm.settings.verify import Verify

    return [one.value for one in Verify if one.value.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Complete the names of the images that can be built."""
    from armvm.provision.image.local import usual_references

    names = [one.removeprefix("local:") for one in usual_references()]
    return [name for name in names if name.startswith(incomplete)]


def kernels(incomplete: str) -> list[str]:
    """Complete the kernels that a built image can have."""
    from armvm.provision.image.local import kernels as known

    return [name for name in known() if name.startswith(incomplete)]


def topics(incomplete: str) -> list[str]:
    """Complete what can be explained."""
    from armvm.provision.inspect.pages import topics as all_topics

    return [one for one in all_topics() if one.startswith(incomplete)]


def snapshots(incomplete: str) -> list[str]:
    """Complete the names of snapshots, whichever machine's they are."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.connect import snapshot_names

        return snapshot_names(open_host(None))

    return _silently(look, incomplete)


def architectures(incomplete: str) -> list[str]:
    """Complete the architectures that there are binfmt handlers for."""
    from armvm.provision.binfmt.status import architecture_names

    return [name for name in architecture_names() if name.startswith(incomplete)]
