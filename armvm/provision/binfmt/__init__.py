"""The use cases of ``armvm binfmt``."""
