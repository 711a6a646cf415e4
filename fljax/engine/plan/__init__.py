"""The host: from a cohort to the plan of its round."""
