"""The cloud-init documents and the NoCloud seed."""
