"""Heterogeneity: features, labels and concepts that differ from client to client, and drift."""
