"""Monitors machines: boot progress, logs, events, resource usage."""
