"""An audit: what a configuration's federation releases, attacked, and the report of it."""
