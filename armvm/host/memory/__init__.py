"""The saved memory of goldens: the routes `cow` and `save-image`."""
