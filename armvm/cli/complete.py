"""Shell completion from live data. What cannot be looked up completes to nothing, silently."""

from __future__ import annotations

from collections.abc import Callable


def _silently(look: Callable[[], list[str]], incomplete: str) -> list[str]:
    from armvm.errors import ArmvmError

    try:
        return [name for name in look() if name.startswith(incomplete)]
    except ArmvmError:
        return []


def machines(incomplete: str) -> list[str]:
    """Complete machines' names."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.access import machine_names

        return machine_names(open_host(None))

    return _silently(look, incomplete)


def machine_paths(incomplete: str) -> list[str]:
    """Complete machines' names with a colon, as `armvm cp` takes them; a path completes itself."""
    return [] if "/" in incomplete else [f"{name}:" for name in machines(incomplete)]


def goldens(incomplete: str) -> list[str]:
    """Complete goldens' names."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.goldens import names

        return names(open_host(None))

    return _silently(look, incomplete)


def networks(incomplete: str) -> list[str]:
    """Complete networks' names, and the word for user networking."""

    def look() -> list[str]:
        from armvm.cli.context import open_host
        from armvm.provision.access import network_names

        return ["user", *network_names(open_host(None))]

    return _silently(look, incomplete)


def images(incomplete: str) -> list[str]:
    """Complete image references: the catalogs' usual ones, and what is cached."""

    def look() -> list[str]:
        from armvm.provision.image_list import known_references

        return known_references()

    return _silently(look, incomplete)


def presets(incomplete: str) -> list[str]:
    """Complete presets' names."""
    from armvm.spec.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def verify(incomplete: str) -> list[str]:
    """Complete what may have to vouch for an image."""
    from armvm.spec.verify import Verify

    return [one.value for one in Verify if one.value.startswith(incomplete)]
