r"""Prints how unlike the clients of a partition are, and draws it; looks at the data themselves.

    fljax partition --dataset=fashion_mnist --partition=dirichlet --num_clients=100 \
        --alpha=0.3 --out=partition.png
    fljax partition --dataset=mnist --num_clients=50 --partition='dirichlet(alpha=0.1)' \
        --partition=shards --partition=iid --examples=6 --check --html=mnist.html
    fljax partition --dataset="csv(path='visits.csv', client='user', label='outcome')"
    fljax partition quickstart --partition=iid --out=partition.png
"""

from __future__ import annotations

from typing import Any

from absl import flags

from fljax.commands.tables import names_for
from fljax.config.command_line import define_config
from fljax.core.settings import DATA

# Options of a partition, which another one has not; and all that may be said of the clients.
OF_PARTITION = ("alpha", "shards_per_client", "classes_per_client", "sigma", "min_partition_size")
OPTIONS = (
    *OF_PARTITION,
    *("rows_per_client", "own_test_fraction", "feature_skew", "concept_shift", "label_noise"),
    *("held_out_fraction", "held_out_folds", "held_out_fold", "concept_drift", "data_checks"),
    "root_rows",
)
_DEFINE: dict[type, Any] = {
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}


def define() -> None:
    """Defines the flags of partitions."""
    define_config()
    flags.DEFINE_string(
        "dataset",
        None,
        f"{', '.join(names_for('dataset'))}, or 'module:function' of your own; default that of "
        "--config, or digits. Options stand in brackets: "
        "csv(path='visits.csv', client='user', label='outcome').",
    )
    flags.DEFINE_multi_string(
        "partition", [], DATA["partition"].meaning + " Several are drawn side by side."
    )
    flags.DEFINE_integer("num_clients", None, "Number of clients.", lower_bound=1)
    flags.DEFINE_integer("seed", None, "Chooses the partition; default 0, or of --config.")
    flags.DEFINE_string("data_dir", None, "Data directory; default $FLJAX_DATA_DIR.")
    flags.DEFINE_string("code_dir", None, "Folder of your module; default the current one.")
    flags.DEFINE_integer(
        "clusters", None, "Joins clients whose labels are alike to so many clusters.", lower_bound=1
    )
    flags.DEFINE_integer(
        "examples", None, "Shows examples of so many clients: a picture, or lines.", lower_bound=1
    )
    flags.DEFINE_bool("check", False, "Looks for faults in the data, client by client.")
    flags.DEFINE_string("out", None, "Where to save the figures; none is drawn without it.")
    flags.DEFINE_string("html", None, "Where to save one page of all that is found.")
    for name in OPTIONS:
        _DEFINE[DATA[name].kind](name, None, DATA[name].meaning)


def main(argv: list[str]) -> None:
    """Describes the partitions, and draws what flags ask for."""
    from fljax.commands import partition_report

    partition_report.show()
