"""Creating and deleting one machine."""
