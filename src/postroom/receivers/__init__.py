"""Receivers: where messages come from."""
