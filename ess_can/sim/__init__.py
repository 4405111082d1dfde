"""The strict simulated plant: virtual time, the wire, and every node on it."""
