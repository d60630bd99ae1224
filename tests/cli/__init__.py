"""The command line, as its users run it: in a process of its own."""
