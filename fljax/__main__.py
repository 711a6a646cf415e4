"""Runs the console command, as `python -m fljax COMMAND ...`, wherever that may lie."""

from fljax.commands import console

if __name__ == "__main__":
    console.main()
