"""The record of what was intended and done: it outlives the process, and says how to go on."""
