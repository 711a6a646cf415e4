"""What all rooms share: names, and what the values that users give may be."""
