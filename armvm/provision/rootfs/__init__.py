"""The implementation of ``armvm rootfs`` and ``armvm emulate``."""
