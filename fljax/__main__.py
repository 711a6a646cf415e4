"""Runs the console command, as `python -m fljax COMMAND ...`, wherever that may lie."""

from fljax.commands import console

console.main()
