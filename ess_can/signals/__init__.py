"""The station's messages as typed values, bound to the DBC, and their end-to-end protection."""
