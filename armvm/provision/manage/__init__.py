"""Changes existing machines: power, size, name, disks, mounts."""
