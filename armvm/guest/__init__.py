"""What the guest is told, and how it answers."""
