"""Creates and deletes a machine."""
