"""Export: what a run becomes outside the simulator."""
