"""Errors, files, locks, signals, processes and the terminal: what every other floor uses."""
