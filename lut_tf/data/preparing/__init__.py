"""Data sets made ready before any run."""
