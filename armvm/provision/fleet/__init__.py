"""Several hosts: their state, and the machines that a fleet file declares."""
