"""Changes existing machines and networks: power, size, name, disks, mounts."""
