"""Finds, lists, builds and removes images."""
