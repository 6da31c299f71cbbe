"""Creates, selects, clones and deletes goldens."""
