"""The front door: parses, calls one use case, renders. Libvirt and friends are imported late."""
