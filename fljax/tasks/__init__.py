"""Tasks: a model together with its loss and its exact metrics.

A task is a record of pure functions, `Task`. `classification` and `next_token` make one of a model
(see `fljax.core.network`); a problem of another kind fills the record itself.
"""

from fljax.core.network import Network, from_functions, from_linen, from_nnx
from fljax.core.task import Metrics, Task
from fljax.tasks.integer_targets import classification, next_token, softmax_cross_entropy

__all__ = [
    "Metrics",
    "Network",
    "Task",
    "classification",
    "from_functions",
    "from_linen",
    "from_nnx",
    "next_token",
    "softmax_cross_entropy",
]
