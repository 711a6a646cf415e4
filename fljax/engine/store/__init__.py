"""The client store: states of clients between rounds."""
