"""The commands, a module each: what is read from the command line, and in which order things are done."""
