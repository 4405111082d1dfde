"""Targets that are given hostile input: a case is a number, and everything in it is drawn from that number."""
