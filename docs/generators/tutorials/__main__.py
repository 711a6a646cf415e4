"""Runs the tutorials, and rewrites those outputs on their pages that a run does not confirm.

`make tutorials` calls it; `--check` changes nothing and fails where a page and its run differ.

Examples:
  make tutorials
  make tutorials NAMES="compression privacy"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from generators.tutorials.lessons import faults, others, pages
from generators.tutorials.pages import with_outputs
from generators.tutorials.runs import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs tutorials by name, all of them unless said; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names of tutorials; all if none is given")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail where they differ"
    )
    options = parser.parse_args(arguments)
    wrong = 0
    for page in [*pages(), *others()]:
        if options.names and page.stem not in options.names:
            continue
        result = run(page)
        outputs = [output.text for output in result.outputs]
        if not options.check:
            page.write_text(with_outputs(page.read_text(), outputs))
        found = faults(page.read_text(), outputs)
        wrong += len(found)
        drawn = sum(len(output.pictures) for output in result.outputs)
        print(f"{page.stem:20} {result.cpu_seconds:5.1f} s of CPU, {drawn} pictures", flush=True)
        for line in found:
            print(f"  {line}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
