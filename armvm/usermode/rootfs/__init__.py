"""Root file systems: create, enter, inspect."""
