"""A real libvirtd: guests are defined, or held at start, or sit in their firmware."""
