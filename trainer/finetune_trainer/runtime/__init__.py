"""The process itself: its log, the versions of its packages, and errors of the machine that it runs on."""
