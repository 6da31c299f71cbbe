"""The use cases: they plan what to do, and are the only code that changes a host."""
