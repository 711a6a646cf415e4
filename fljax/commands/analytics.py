"""Asks the clients of a configuration for statistics of what they hold: federated analytics.

    fljax analytics analytics --workdir=runs/words
    fljax analytics quickstart --query="mean" --query="histogram(-0.5, 9.5, 10)" --column=y

The config file names the data and, where there is any, the privacy of all queries, `get_config()`,
and what is asked, `get_queries()`; --query takes the place of the latter. The workdir receives
analytics.json, with the answers, their errors, epsilon and bytes, and analytics.txt, the table that
is printed. Of the configuration, what is about training has no effect.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

import fljax
from fljax import commands
from fljax.config import call_in_file, resolve
from fljax.config.command_line import config_file, config_given, define_config
from fljax.core.settings import PRIVACY

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of queries."""
    define_config()
    flags.DEFINE_string("workdir", None, "Directory for what is found.")
    flags.DEFINE_multi_string(
        "query", [], "What is asked, such as 'quantile(0.5)'; instead of the file's."
    )
    flags.DEFINE_string("column", "y", "Of a row, what --query asks about: x, y, x[3], ...")
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Asks, and prints the table of the answers."""
    from fljax.config.experiment import make_dataset
    from fljax.core.own_modules import beside
    from fljax.recording.jsonio import write_json
    from fljax.training.asked_report import as_plain, table_of

    fljax.use_all_cores()
    path = config_file()
    config = resolve(config_given())
    queries = {text: {"query": text, "column": _FLAGS.column} for text in _FLAGS.query}
    queries = queries or call_in_file(path, "get_queries")
    if not queries:
        raise ValueError(f"{path} defines no function get_queries(). Define one, or give --query.")
    shared = {name: config[name] for name in PRIVACY} | {"seeds": (config.seed,)}
    with beside(config.code_dir):
        dataset = make_dataset(config)
        replies = {name: _asked(dataset, shared, query) for name, query in queries.items()}
    folder = Path(_FLAGS.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(replies)
    write_json(
        folder / "analytics.json",
        {
            "dataset": dataset.name,
            "clients": dataset.num_clients,
            "seed": config.seed,
            "replies": {name: as_plain(reply) for name, reply in replies.items()},
        },
    )
    (folder / "analytics.txt").write_text(table + "\n")
    commands.show(table)
    return 0


def _asked(dataset, shared, query):
    """Returns the reply to a text, or a dict of arguments of `fljax.ask`; None unsets a key."""
    given = {"query": query} if isinstance(query, str) else dict(query)
    options = {name: value for name, value in {**shared, **given}.items() if value is not None}
    return fljax.ask(dataset, **options)
