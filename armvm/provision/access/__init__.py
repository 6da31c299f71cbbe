"""Access to a machine: ssh, cp, console, exec, forwarded ports."""
