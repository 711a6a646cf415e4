"""Importing the recording package is cheap."""

import subprocess
import sys


def test_nothing_heavy_is_imported():
    program = (
        "import sys, fljax.recording\n"
        "print([m for m in ('orbax', 'wandb', 'matplotlib', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
