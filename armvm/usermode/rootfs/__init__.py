"""Root file systems: built, entered, inspected."""
