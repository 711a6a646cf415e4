"""Privacy: mechanisms inside the round program, their accountants, and secure aggregation."""
