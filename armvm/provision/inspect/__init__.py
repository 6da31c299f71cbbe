"""``doctor``, ``explain`` and ``config``."""
