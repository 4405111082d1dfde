"""The CAN frame and its exact time on the wire (ISO 11898-1)."""
