"""Remote firmware upgrade of battery energy storage systems over the CAN bus they already have."""

__version__ = "0.1.0"
