"""Federated algorithms, one file each; `make` builds one from its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fljax.algorithms.afl import afl
from fljax.algorithms.apfl import apfl
from fljax.algorithms.centralized import centralized
from fljax.algorithms.cfl import cfl
from fljax.algorithms.delta_sgd import delta_sgd
from fljax.algorithms.ditto import ditto
from fljax.algorithms.fairfed import fairfed
from fljax.algorithms.fedadmm import fedadmm
from fljax.algorithms.fedala import fedala
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.fedbabu import fedbabu
from fljax.algorithms.fedbn import fedbn
from fljax.algorithms.feddc import feddc
from fljax.algorithms.feddrift import feddrift
from fljax.algorithms.feddyn import feddyn
from fljax.algorithms.fedexp import fedexp
from fljax.algorithms.fedlin import fedlin
from fljax.algorithms.fedmgda import fedmgda
from fljax.algorithms.fednova import fednova
from fljax.algorithms.fedper import fedper
from fljax.algorithms.fedproto import fedproto
from fljax.algorithms.fedprox import fedprox
from fljax.algorithms.fedrep import fedrep
from fljax.algorithms.fedrolex import fedrolex
from fljax.algorithms.fedsam import fedsam
from fljax.algorithms.fedsgd import fedsgd
from fljax.algorithms.fedsoft import fedsoft
from fljax.algorithms.fedspeed import fedspeed
from fljax.algorithms.fine_tuning import fine_tuning
from fljax.algorithms.fjord import fjord
from fljax.algorithms.gifair import gifair
from fljax.algorithms.heterofl import heterofl
from fljax.algorithms.hypcluster import hypcluster
from fljax.algorithms.ifca import ifca
from fljax.algorithms.knn_per import knn_per
from fljax.algorithms.layer_freezing import layer_freezing
from fljax.algorithms.lg_fedavg import lg_fedavg
from fljax.algorithms.local_only import local_only
from fljax.algorithms.mime import mime, mimelite
from fljax.algorithms.mofedsam import mofedsam
from fljax.algorithms.moon import moon
from fljax.algorithms.optimal_sampling import optimal_sampling
from fljax.algorithms.per_fedavg import per_fedavg
from fljax.algorithms.pfedme import pfedme
from fljax.algorithms.power_of_choice import power_of_choice
from fljax.algorithms.q_fedavg import q_fedavg
from fljax.algorithms.scaffold import scaffold
from fljax.algorithms.server_optimizers import SERVER_OPTIMIZERS, fedopt
from fljax.algorithms.term import term
from fljax.core import parts
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.values import shown

__all__ = [
    "ALGORITHMS",
    "SERVER_OPTIMIZERS",
    "afl",
    "apfl",
    "centralized",
    "cfl",
    "delta_sgd",
    "ditto",
    "fairfed",
    "fedadmm",
    "fedala",
    "fedavg",
    "fedbabu",
    "fedbn",
    "feddc",
    "feddrift",
    "feddyn",
    "fedexp",
    "fedlin",
    "fedmgda",
    "fednova",
    "fedopt",
    "fedper",
    "fedproto",
    "fedprox",
    "fedrep",
    "fedrolex",
    "fedsam",
    "fedsgd",
    "fedsoft",
    "fedspeed",
    "fine_tuning",
    "fjord",
    "gifair",
    "heterofl",
    "hypcluster",
    "ifca",
    "knn_per",
    "layer_freezing",
    "lg_fedavg",
    "local_only",
    "make",
    "mime",
    "mimelite",
    "mofedsam",
    "moon",
    "optimal_sampling",
    "per_fedavg",
    "pfedme",
    "power_of_choice",
    "q_fedavg",
    "scaffold",
    "term",
]

# name -> function (**hyperparameters) -> AlgorithmSpec
ALGORITHMS: dict[str, Callable[..., AlgorithmSpec]] = {
    "afl": afl,
    "apfl": apfl,
    "cfl": cfl,
    "delta_sgd": delta_sgd,
    "ditto": ditto,
    "fairfed": fairfed,
    "fedadmm": fedadmm,
    "fedala": fedala,
    "fedavg": functools.partial(fedopt, server_optimizer="sgd"),
    "fedbabu": fedbabu,
    "fedbn": fedbn,
    "feddc": feddc,
    "feddrift": feddrift,
    "feddyn": feddyn,
    "fedexp": fedexp,
    "fedlin": fedlin,
    "fedmgda": fedmgda,
    "fednova": fednova,
    "fedopt": fedopt,
    "fedper": fedper,
    "fedproto": fedproto,
    "fedprox": fedprox,
    "fedrep": fedrep,
    "fedrolex": fedrolex,
    "fedsam": fedsam,
    "fedsgd": fedsgd,
    "fedsoft": fedsoft,
    "fedspeed": fedspeed,
    "fine_tuning": fine_tuning,
    "fjord": fjord,
    "gifair": gifair,
    "heterofl": heterofl,
    "hypcluster": hypcluster,
    "ifca": ifca,
    "knn_per": knn_per,
    "layer_freezing": layer_freezing,
    "lg_fedavg": lg_fedavg,
    "local_only": local_only,
    "mime": mime,
    "mimelite": mimelite,
    "mofedsam": mofedsam,
    "moon": moon,
    "optimal_sampling": optimal_sampling,
    "per_fedavg": per_fedavg,
    "pfedme": pfedme,
    "power_of_choice": power_of_choice,
    "q_fedavg": q_fedavg,
    "scaffold": scaffold,
    "term": term,
}

# What `**options` stands for; functions cannot be written in a text.
_OPTIONS = [
    name
    for name in inspect.signature(fedavg).parameters
    if name not in ("client_optimizer", "server_optimizer", "name", "hparams")
]


def make(name: str, **hyperparameters) -> AlgorithmSpec:
    """Returns an algorithm by name.

    Args:
      name: One of `ALGORITHMS`, a call of one, or "module:function" of your own, which returns an
        AlgorithmSpec.
      **hyperparameters: Those of the algorithm that the call leaves open, such as mu=0.1 for
        "fedprox".

    Raises:
      ValueError: For an unknown name, a hyperparameter that the algorithm does not have, or where a
        function of your own returns something else.

    Example:
      >>> algorithms.make("fedprox(mu=0.1)", client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'mu': 0.1}
    """
    return named(name, hyperparameters)


def named(name: str, hyperparameters: Mapping[str, Any]) -> AlgorithmSpec:
    """Returns an algorithm by name, as `make` does, whatever its hyperparameters are called."""
    call = parts.read_one("algorithm", name, ALGORITHMS)
    spec = parts.make(call, given=hyperparameters, rest=_OPTIONS)
    if not isinstance(spec, AlgorithmSpec):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(spec)} ({type(spec).__name__}), and an "
            "algorithm is a fljax.core.algorithm.AlgorithmSpec, such as "
            "fljax.algorithms.fedavg(client_lr=0.1) makes."
        )
    return spec
