"""The implementation of ``armvm binfmt``."""
