"""The test layers: unit, expected, libvirt, boot."""
