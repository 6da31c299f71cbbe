"""The distributions' catalogs, one module each, and the two forms that most of them have."""
