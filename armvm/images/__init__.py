"""Resolve image references to verified local files."""
