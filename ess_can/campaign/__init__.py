"""Simulated upgrades under faults, many of them, each watched for what must never happen."""
