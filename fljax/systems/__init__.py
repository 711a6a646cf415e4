"""Time: what devices can do, when they are there, and in what order their work arrives."""
