"""Incoming messages: what they are, what is done with them, and where they are filed."""
