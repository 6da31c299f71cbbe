"""armvm on other hosts: Debian releases with their own systemd, libvirt and QEMU."""
