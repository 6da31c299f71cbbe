#: The version of this release: pyproject.toml, the manual pages and the tests read it here.
__version__ = "0.1.0"
