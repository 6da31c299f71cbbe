"""The use cases of ``armvm rootfs`` and ``armvm emulate``."""
