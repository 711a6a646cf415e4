"""The devices: the round program."""
