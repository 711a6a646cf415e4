"""Names of weights in files, and the order of their axes there.

A convention says, for a leaf of ours, its name in a file and the order of its axes there. Files of
our own go by paths: `trunk/blocks/0/up/kernel` is `trunk.blocks.0.up.kernel`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

Path = tuple[str, ...]


class Place(NamedTuple):
    """The place of a leaf in a file: its name, and which axis of ours each of its axes is there."""

    name: str
    axes: tuple[int, ...]


class Convention(NamedTuple):
    """The names and layouts of weights in files of one origin.

    Attributes:
      place: (path, number of axes) -> Place.
      prefixes: Texts that names in a file may begin with, and lose.
      ignored: Matches names of a file that are no weights.
    """

    place: Callable[[Path, int], Place]
    prefixes: tuple[str, ...] = ()
    ignored: str = r"(?!)"


def _ours(path: Path, axes: int) -> Place:
    return Place(".".join(path), tuple(range(axes)))


_TORCH = {
    "kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip


def _torch(path: Path, axes: int) -> Place:
    """Returns the place of a leaf in a state dict of a module of the same structure.

    PyTorch's dense layers and convolutions have outputs first, inputs second, and then places.
    """
    *layer, name = path
    order = tuple(range(axes))
    if name == "kernel" and axes > 1:
        order = (axes - 1, axes - 2, *range(axes - 2))
    return Place(".".join([*layer, _TORCH.get(name, name)]), order)


_GPT2 = [
    (r"trunk\.embed\.embedding", "wte.weight"),
    (r"trunk\.positions\.embedding", "wpe.weight"),
    (r"trunk\.norm\.(scale|bias)", r"ln_f.\1"),
    (r"trunk\.blocks\.(\d+)\.norm(\d)\.(scale|bias)", r"h.\1.ln_\2.\3"),
    (r"trunk\.blocks\.(\d+)\.attention\.qkv\.(kernel|bias)", r"h.\1.attn.c_attn.\2"),
    (r"trunk\.blocks\.(\d+)\.attention\.out\.(kernel|bias)", r"h.\1.attn.c_proj.\2"),
    (r"trunk\.blocks\.(\d+)\.up\.(kernel|bias)", r"h.\1.mlp.c_fc.\2"),
    (r"trunk\.blocks\.(\d+)\.down\.(kernel|bias)", r"h.\1.mlp.c_proj.\2"),
]


def _gpt2(path: Path, axes: int) -> Place:
    """Returns the place of a leaf of `gpt` in Hugging Face's files of GPT-2, inputs first."""
    if path[0] == "head":  # a torch.nn.Linear, of models whose last layer is one of its own
        return Place("lm_head.weight", (1, 0))
    name = ".".join(path)
    for pattern, theirs in _GPT2:
        if found := re.fullmatch(pattern, name):
            name = re.sub(r"(kernel|scale)$", "weight", found.expand(theirs))
            break
    return Place(name, tuple(range(axes)))


CONVENTIONS = {
    "fljax": Convention(_ours),
    "torch": Convention(_torch, ("module.",), r"(.*\.)?num_batches_tracked"),
    # buffers with masks, and the last layer of tied embeddings
    "gpt2": Convention(
        _gpt2, ("transformer.",), r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight"
    ),
}  # fmt: skip
