"""The command line: click commands, one file a group, and how results look to people and to programs."""
