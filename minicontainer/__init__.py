"""A container engine and OCI runtime in nothing but Python's standard library."""

__version__ = "0.1.0"
