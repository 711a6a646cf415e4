"""Selection: samplers that look at clients, at their sizes, labels, losses and speeds."""
