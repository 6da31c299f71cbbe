"""Settings: machines, sizes, names. Pure: no libvirt, no network, no clock."""
