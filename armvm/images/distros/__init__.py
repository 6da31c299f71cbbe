"""The distributions' catalogs, one module each, and the two shapes that most of them have."""
