"""Accuracy against uplink bytes: a ladder of compressors on one task.

For `fljax study`, which runs the variants below with three seeds and leaves a table, a Pareto
plot and a report; `fljax run` runs a single one, with --config.uplink=... Tasks:

    compression_tradeoff                      Fashion-MNIST, the default
    compression_tradeoff:mnist_writers        MNIST by writer
    compression_tradeoff:fashion_mnist_many   1,000 clients, 2 % a round
    compression_tradeoff:mnist_writers_many   539 clients, 2 % a round

Fashion-MNIST is split by label with Dirichlet(0.3). Of MNIST's 539 writers 27 at a time, next to
each other by number, are one of 20 clients, so that all 60,000 images are there (the 20 largest
writers have some 2,600). Both have 10 of 20 clients a round. Of many clients, each is one writer,
or has some 60 images; they take part every fiftieth round, so that what error feedback keeps waits
long.
Costs: 63 runs of 6 to 12 s each on two cores, 15 of the variants with many clients.
Reaches: top-k 1 % with error feedback (67 times fewer uplink bytes) and int8 (4 times) within a
point of the uncompressed accuracy, with 20 clients. Figures: BENCHMARKS.md.
"""

from fljax.config import check_setting, default_config

TASKS = ("fashion_mnist", "mnist_writers", "fashion_mnist_many", "mnist_writers_many")

FEW = (
    "none",
    "bf16",
    "natural",
    "int8",
    "int8_channels",
    "qsgd(8)",
    "qsgd(4)",
    "qsgd(2)",
    "rotated_uniform(4)",
    "eden(2)",
    "drive",
    "terngrad per leaf",
    "sign per leaf + error_feedback",
    "powersgd(2) + error_feedback",
    "top_k(0.1)",
    "top_k(0.1) + error_feedback",
    "top_k(0.01)",
    "top_k(0.01) + error_feedback",
    "top_k(0.001)",
    "top_k(0.001) + error_feedback",
    "top_k(0.01), int8 + error_feedback",
)
MANY = ("none", "int8", "qsgd(8)", "top_k(0.01)", "top_k(0.01) + error_feedback")


def get_config(task="fashion_mnist"):
    check_setting(task, TASKS)
    dataset, many = task.removesuffix("_many"), task.endswith("_many")
    config = default_config()
    config.dataset = dataset
    if dataset == "mnist_writers":
        config.partition = "natural"
        config.num_clients = 539 if many else 20
        config.dataset_options.writers_per_client = 1 if many else 27
    else:
        config.partition = "dirichlet"
        config.alpha = 0.3
        config.num_clients = 1000 if many else 20
        config.min_partition_size = 10
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (64,)
    config.clients_per_round = {20: 10, 539: 11, 1000: 20}[config.num_clients]
    if many:
        config.local_epochs = 5
        config.batch_size = 20
    else:
        config.local_steps = 10
        config.batch_size = 32
    config.client_lr = 0.1
    config.num_rounds = 500
    config.eval_every = 10
    config.target_accuracy = {"fashion_mnist": 0.85, "mnist_writers": 0.96}[dataset]
    config.uplink_mbps = 10.0
    config.downlink_mbps = 50.0
    config.calibrate = False
    # each seed draws its own split, the same for all variants
    config.data_seed = config.get_ref("seed")
    return config


def get_study(task="fashion_mnist"):
    return {
        "variants": {text: compressor(text) for text in (MANY if task.endswith("_many") else FEW)},
        "reference": "none",
        "seeds": (0, 1, 2),
        "columns": (
            "client_uplink_bytes",
            "uplink_factor",
            "best",
            "last",
            "gap",
            "rounds_to_target",
            "uplink_to_target",
            "transfer_to_target",
        ),
        "pictures": ("pareto", "bars", "curves"),
    }


def compressor(text):
    """Returns what "sign per leaf + error_feedback" and the like change in the configuration."""
    code, _, memory = text.partition(" + ")
    return {
        "uplink": code.removesuffix(" per leaf"),
        "uplink_per_leaf": code.endswith(" per leaf"),
        "uplink_memory": memory or "none",
    }
