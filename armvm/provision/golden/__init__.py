"""Goldens: made, chosen, cloned, deleted."""
