"""The command line: thin. It parses, calls one verb, and renders; torch is not imported before a command needs it."""

from firmground.cli.app import app, main

__all__ = ["app", "main"]
