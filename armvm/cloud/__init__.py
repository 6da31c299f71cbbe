"""Machines in an OpenStack cloud: Nova places them, armvm makes them ready to log in to."""
