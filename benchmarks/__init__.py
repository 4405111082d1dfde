"""Measurements, each with the command that prints its figures."""
