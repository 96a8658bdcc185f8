"""The report of the command line: data and picture."""
