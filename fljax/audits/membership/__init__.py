"""Membership inference: whether a row, or a client, was among those that a model trained on."""
