"""The implementation of ``doctor``, ``explain`` and ``config``."""
