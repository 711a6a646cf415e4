"""Pictures: partitions, examples of clients, and clusters of clients."""
