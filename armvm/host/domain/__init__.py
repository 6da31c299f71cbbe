"""Domains: XML, lifecycle, metadata, devices."""
