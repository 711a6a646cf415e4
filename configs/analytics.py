"""Federated analytics: which words Shakespeare's plays hold, asked of 20,000 clients.

For `fljax analytics`. Each client has some twenty words of all plays, as they are divided at
random: x their bytes, y how many letters they have. Lengths are asked under Gaussian noise for
users; frequent words by TrieHH, which is private without noise; how many different words there are,
behind secure sums. `dataset` is a function of this file.
Costs: half a minute of a core, most of it for the bitmaps of the last query (5 GB of messages).
Reaches: mean length 4.124 with standard error 0.002 (epsilon 1.1) and median 4 (epsilon 2.3), where
four words of a client count; "the", "and", "i" and "to" by TrieHH (epsilon 4.0); 19,700 different
words with standard error 57, where there are 19,657.
"""

import re

import numpy as np

from fljax import data
from fljax.config import default_config
from fljax.data.sources.shakespeare import VOCABULARY

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
LONGEST = 12


def words(data_dir=None, **clients):
    """Returns the words of the plays of up to twelve letters, each a row."""
    plays = data.shakespeare(data_dir=data_dir).train.examples.arrays
    # chunks of 81 characters, of which x has the first 80 and y the last; others end words
    ids = np.concatenate([plays["x"], plays["y"][:, -1:]], axis=1).reshape(-1)
    characters = np.array([" ", *VOCABULARY, " ", " ", " "])
    found = re.findall("[a-z']+", "".join(characters[ids]).lower())
    found = [word for word in found if len(word) <= LONGEST]
    lengths = np.array([len(word) for word in found])
    letters = np.array(found, f"S{LONGEST}").view(np.uint8).reshape(-1, LONGEST)
    letters = letters.astype(np.int32)
    return data.from_arrays(letters, lengths, name="words", num_classes=LONGEST + 1, **clients)


def get_config():
    config = default_config()
    config.dataset = "analytics:words"
    config.partition = "iid"
    config.num_clients = 20_000
    config.model = "softmax_regression"
    config.clients_per_round = 100
    return config


def get_queries():
    private = {"privacy": "gaussian", "noise_multiplier": 4.0, "delta": 1e-6}
    return {
        "mean length": {"query": "mean(1, 12, weight_cap=4)", **private},
        "median length": {"query": "quantile(0.5, 1, 12, weight_cap=4)", **private},
        "lengths": {"query": "histogram(0.5, 12.5, 12, weight_cap=4)", **private},
        "lengths, exactly": {
            "query": "histogram(0.5, 12.5, 12)",
            "secure_aggregation": "secure_aggregation(graph=32)",
            "clients_per_round": 1000,
        },
        "frequent words": {
            "query": f'heavy_hitters("{LETTERS}", epsilon=4.0, delta=1e-6)',
            "column": "x",
        },
        "different words": {"query": "count_distinct(65536)", "column": "x"},
    }
