"""Finds the name that a user meant: the nearest one, or ours for another framework's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fljax.core.values import shown

_A_NUMBER = "a number of clients, not a fraction"
_A_CALL = "a text such as 'top_k(0.01)' or 'qsgd(8)'"

# {their name: (whose it is, or empty for several; our name; what to mind)}
FOREIGN_NAMES: dict[str, tuple[str, str, str]] = {
    "fraction_fit": ("Flower", "clients_per_round", _A_NUMBER),
    "fraction_train": ("Flower", "clients_per_round", _A_NUMBER),
    "fraction_evaluate": ("Flower", "eval_clients", _A_NUMBER),
    "min_fit_clients": ("Flower", "clients_per_round", ""),
    "min_train_nodes": ("Flower", "clients_per_round", ""),
    "min_available_clients": ("Flower", "num_clients", ""),
    "num_supernodes": ("Flower", "num_clients", ""),
    "num_partitions": ("Flower", "num_clients", ""),
    "num_server_rounds": ("Flower", "num_rounds", ""),
    "proximal_mu": ("Flower", "mu", ""),
    "eta": ("Flower", "server_lr", ""),
    "eta_l": ("Flower", "client_lr", ""),
    "beta_1": ("Flower", "beta1", ""),
    "beta_2": ("Flower", "beta2", ""),
    "strategy": ("Flower", "algorithm", ""),
    "comm_round": ("FedML", "num_rounds", ""),
    "client_num_in_total": ("FedML", "num_clients", ""),
    "client_num_per_round": ("FedML", "clients_per_round", ""),
    "partition_method": ("FedML", "partition", ""),
    "partition_alpha": ("FedML", "alpha", ""),
    "federated_optimizer": ("FedML", "algorithm", ""),
    "frequency_of_the_test": ("FedML", "eval_every", ""),
    "random_seed": ("FedML", "seed", ""),
    "n_parties": ("NIID-Bench", "num_clients", ""),
    "alg": ("NIID-Bench", "algorithm", ""),
    "sample": ("NIID-Bench", "clients_per_round", _A_NUMBER),
    "num_epochs": ("LEAF", "local_epochs", ""),
    "num_clients_per_round": ("FedJAX", "clients_per_round", ""),
    "client_learning_rate": ("FedJAX", "client_lr", ""),
    "server_learning_rate": ("FedJAX", "server_lr", ""),
    "cohort_size": ("pfl-research", "clients_per_round", ""),
    "central_num_iterations": ("pfl-research", "num_rounds", ""),
    "local_num_epochs": ("pfl-research", "local_epochs", ""),
    "local_num_steps": ("pfl-research", "local_steps", ""),
    "local_batch_size": ("pfl-research", "batch_size", ""),
    "local_learning_rate": ("pfl-research", "client_lr", ""),
    "evaluation_frequency": ("pfl-research", "eval_every", ""),
    "client_epochs_per_round": ("TensorFlow Federated", "local_epochs", ""),
    "total_rounds": ("TensorFlow Federated", "num_rounds", ""),
    "rounds_per_eval": ("TensorFlow Federated", "eval_every", ""),
    "global_rounds": ("PFLlib", "num_rounds", ""),
    "join_ratio": ("PFLlib", "clients_per_round", _A_NUMBER),
    "lamda": ("PFLlib", "lam", ""),
    "plocal_epochs": ("PFLlib", "personal_epochs", ""),
    "p_learning_rate": ("PFLlib", "inner_lr", ""),
    "rand_percent": ("PFLlib", "ala_share", "a share, not a percentage"),
    "sample_ratio": ("FedLab", "clients_per_round", _A_NUMBER),
    "frac": ("", "clients_per_round", _A_NUMBER),
    "num_users": ("", "num_clients", ""),
    "n_clients": ("", "num_clients", ""),
    "local_ep": ("", "local_epochs", ""),
    "local_epoch": ("", "local_epochs", ""),
    "local_bs": ("", "batch_size", ""),
    "rounds": ("", "num_rounds", ""),
    "epochs": ("", "local_epochs", "passes of a client over its data; rounds are num_rounds"),
    "lr": ("", "client_lr", "the server's is server_lr"),
    "learning_rate": ("", "client_lr", "the server's is server_lr"),
    "local_lr": ("", "client_lr", ""),
    "global_lr": ("", "server_lr", ""),
    "momentum": ("", "client_momentum", "the server's is server_momentum"),
    "weight_decay": ("", "client_weight_decay", ""),
    "optimizer": ("", "server_optimizer", "clients use SGD with client_momentum"),
    "prox_mu": ("", "mu", ""),
    "compression": ("", "uplink", _A_CALL),
    "compressor": ("", "uplink", _A_CALL),
    "compress": ("", "uplink", _A_CALL),
    "compression_ratio": ("", "uplink", _A_CALL),
    "compress_ratio": ("", "uplink", _A_CALL),
    "sparsity": ("", "uplink", _A_CALL),
    "topk": ("", "uplink", _A_CALL),
    "top_k": ("", "uplink", _A_CALL),
    "quantization": ("", "uplink", _A_CALL),
    "quantize_bits": ("", "uplink", _A_CALL),
    "quantization_level": ("", "uplink", _A_CALL),
    "error_feedback": ("", "uplink_memory", "uplink_memory = 'error_feedback'"),
    "early_stopping": ("", "patience", "a number of evaluations"),
    "early_stopping_patience": ("", "patience", "a number of evaluations"),
    "early_stopping_rounds": ("", "patience", "a number of evaluations, not of rounds"),
    "max_grad_norm": ("Opacus", "clip_norm", ""),
    "target_delta": ("Opacus", "delta", ""),
    "l2_norm_clip": ("TensorFlow Privacy", "clip_norm", ""),
    "clipping_norm": ("Flower", "clip_norm", ""),
    "num_sampled_clients": ("Flower", "clients_per_round", ""),
    "clipping_bound": ("pfl-research", "clip_norm", ""),
    "clipping_threshold": ("", "clip_norm", ""),
    "dp": ("", "privacy", "a text such as 'gaussian(0.3)'"),
    "differential_privacy": ("", "privacy", "a text such as 'gaussian(0.3)'"),
    "secagg": ("", "secure_aggregation", "a text such as 'secure_aggregation'"),
    "secure_agg": ("", "secure_aggregation", "a text such as 'secure_aggregation'"),
    "bandwidth": ("", "uplink_mbps", "the other direction's is downlink_mbps"),
}


def foreign(name: object, known: Iterable[str]) -> str:
    """Returns a sentence on whose name this is and what we call it, or "" if it is nobody's.

    Args:
      name: As the user wrote it.
      known: Our names that exist in its place.
    """
    if equivalent(name, known) is None:
        return ""
    framework, ours, note = FOREIGN_NAMES[_plain(name)]
    whose = f"That is {framework}'s name; here" if framework else "Here"
    return f"{whose} it is called {ours!r}" + (f": {note}." if note else ".")


def equivalent(name: object, known: Iterable[str]) -> str | None:
    """Returns our name for what another framework calls so, if it is a known one."""
    ours = FOREIGN_NAMES.get(_plain(name), ("", "", ""))[1]
    return ours if ours in known else None


def nearest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the known name that was probably meant, or None."""
    close = difflib.get_close_matches(_plain(name), list(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Returns the message for a name that is not known, with the nearest that is."""
    known = sorted(known)
    hint = ""
    if theirs := foreign(name, known):
        hint = f" ({theirs.rstrip('.')})"
    elif near := nearest(name, known, cutoff=0.5):
        hint = f" (did you mean {near!r}?)"
    return f"unknown {what}: {shown(name)}{hint}. Known: {', '.join(known) or 'none'}"


def _plain(name: object) -> str:
    return str(name).lower().replace("-", "_")
