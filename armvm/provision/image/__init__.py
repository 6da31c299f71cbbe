"""Images: found, listed, built, removed."""
