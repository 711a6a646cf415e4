"""The engine: planner, round program, client store, and the plans that pass between them."""
