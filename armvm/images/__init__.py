"""An image reference becomes a verified local file."""
