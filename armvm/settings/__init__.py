"""What is wanted: machines, sizes, names. Pure: no libvirt, no network, no clock."""
