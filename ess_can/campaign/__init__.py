"""Gateway and simulated plant under faults, watched by monitors of every invariant, in virtual time."""
