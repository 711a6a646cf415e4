"""Reconstruction: private rows, drawn again from an update or a model."""
