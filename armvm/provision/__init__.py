"""The use cases: what is decided (plan), and the only code that changes a host (apply)."""
