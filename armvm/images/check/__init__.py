"""Checks of image files: format, qcow2 structure, CPU."""
