"""Firmground plants, finds, removes and blocks backdoors in the encoders and prompts that everyone builds on."""

__version__ = "0.1.0"
