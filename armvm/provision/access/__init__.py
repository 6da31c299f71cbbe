"""Ways into a machine: ssh, cp, console, exec, forwarded ports."""
