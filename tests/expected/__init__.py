"""Output held against recorded files."""
