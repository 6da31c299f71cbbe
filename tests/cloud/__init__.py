"""Tests with real services of OpenStack, from Debian packages, in namespaces."""
