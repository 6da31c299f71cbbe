"""Changes to a machine that exists: power, size, name, disks, mounts."""
