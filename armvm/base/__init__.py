"""Errors, progress, processes, paths and signals. Every package may use them."""
