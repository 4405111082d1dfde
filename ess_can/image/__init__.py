"""Formats of firmware: node image, upgrade file, and the object files that come out of a linker."""
