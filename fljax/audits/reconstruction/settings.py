"""Settings of gradient inversion, by the names of the papers that they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fljax.core import parts
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, checked, shown, wrong

__all__ = ["INVERSIONS", "Inversion", "dlg", "geiping", "idlg", "make_inversion"]

_CHOICES = {
    "distance": ("l2", "cosine"),
    "optimizer": ("lbfgs", "adam"),
    "labels": ("optimized", "inferred"),
    "start": ("normal", "uniform"),
}
_NUMBERS = {
    "steps": (int, COUNT),
    "restarts": (int, COUNT),
    "learning_rate": (float, POSITIVE),
    "total_variation": (float, NON_NEGATIVE),
    "tolerance": (float, NON_NEGATIVE),
}


class Inversion(NamedTuple):
    """The search for rows whose gradient, or update, is the one that was sent.

    Attributes:
      distance: Between what was sent and what the rows in question would have sent: "l2", squared
        and as a share of the squared norm of what was sent, or "cosine", 1 less the cosine.
      optimizer: "lbfgs" or "adam".
      steps: Evaluations of the objective in each restart, at most.
      restarts: How many starts are tried side by side; the least objective wins.
      labels: Those that the attacker does not know are "optimized" together with x, as softmax of
        free numbers, or "inferred" from the gradient of the last layer before.
      learning_rate: Of Adam.
      signed: Whether Adam is given the signs of the gradient of x alone.
      decay: Whether Adam's rate falls to a tenth after 3/8, 5/8 and 7/8 of the steps.
      total_variation: Weight of the total variation of images in the objective.
      box: (least, largest) value of x, into which each step of Adam is projected; None for none.
      start: x begins as "normal", or "uniform" in the box, which is (0, 1) where there is none.
      tolerance: A restart ends as soon as its objective is below.

    Example:
      >>> Inversion(steps=100).distance
      'l2'
    """

    distance: str = "l2"
    optimizer: str = "lbfgs"
    steps: int = 2000
    restarts: int = 8
    labels: str = "optimized"
    learning_rate: float = 0.1
    signed: bool = False
    decay: bool = False
    total_variation: float = 0.0
    box: tuple[float, float] | None = None
    start: str = "normal"
    tolerance: float = 0.0


def dlg(
    steps: int = 2000, restarts: int = 8, start: str = "normal", tolerance: float = 1e-10
) -> Inversion:
    """Returns deep leakage from gradients: x and soft labels are found together, by L-BFGS.

    Zhu, Liu and Han 2019. Their code takes L-BFGS steps of length 1, from which many starts do not
    return; here a line search bounds them. They optimize the rows of a batch in turn; here all of
    them move at once.

    Args:
      steps: Evaluations of the objective in each restart, at most.
      restarts: Starts side by side.
      start: "normal", as in their code, or "uniform".
      tolerance: The relative squared distance at which a restart ends.

    References: arXiv:1906.08935.

    Example:
      >>> dlg(steps=300).labels
      'optimized'
    """
    return checked_inversion(
        Inversion(steps=steps, restarts=restarts, start=start, tolerance=tolerance)
    )


def idlg(
    steps: int = 2000, restarts: int = 8, start: str = "normal", tolerance: float = 1e-10
) -> Inversion:
    """Returns improved deep leakage: labels follow from the last layer's gradient; x is found then.

    Zhao, Mopuri and Bilen 2020. For batches, of which they say nothing, labels are counted as
    `label_inference.label_counts` does. Arguments are those of `dlg`.

    References: arXiv:2001.02610.

    Example:
      >>> idlg().labels
      'inferred'
    """
    return dlg(steps, restarts, start, tolerance)._replace(labels="inferred")


def geiping(
    total_variation: float = 1e-4,
    steps: int = 4800,
    restarts: int = 1,
    learning_rate: float = 0.1,
    box: tuple[float, float] | None = (0.0, 1.0),
    labels: str = "inferred",
) -> Inversion:
    """Returns inverting gradients: the cosine distance, total variation, and signed steps of Adam.

    Geiping, Bauermeister, Dröge and Moeller 2020. Numbers are those of their code, which sums
    total variation as here: the mean of horizontal and that of vertical differences. Restarts are
    told apart by the whole objective; their code leaves total variation out of that.

    Args:
      total_variation: Its weight, 1e-4 to 1e-1 in their experiments; 0 for rows that are no images.
      steps: Evaluations of the objective.
      restarts: Starts side by side.
      learning_rate: Of Adam at first.
      box: (least, largest) value of x; None for no bounds.
      labels: "inferred" or "optimized", where they are not known.

    References: arXiv:2003.14053.

    Example:
      >>> geiping(1e-2, steps=600).signed
      True
    """
    return checked_inversion(
        Inversion(
            distance="cosine", optimizer="adam", steps=steps, restarts=restarts, labels=labels,
            learning_rate=learning_rate, signed=True, decay=True,
            total_variation=total_variation, box=None if box is None else tuple(box),
        )
    )  # fmt: skip


# What `attack` may name.
INVERSIONS: dict[str, Callable[..., Inversion]] = {"dlg": dlg, "idlg": idlg, "geiping": geiping}


def make_inversion(attack: str | Inversion) -> Inversion:
    """Returns settings by name, such as "dlg", "geiping(1e-2, steps=600)" or "module:function".

    Raises:
      ValueError: For an unknown name, or numbers out of range.

    Example:
      >>> make_inversion("idlg(steps=10)").steps
      10
    """
    if isinstance(attack, Inversion):
        return checked_inversion(attack)
    made = parts.make(parts.read_one("attack", attack, INVERSIONS))
    if not isinstance(made, Inversion):
        raise ValueError(
            f"attack = {attack!r} returned {shown(made)} ({type(made).__name__}), and settings are "
            "a fljax.audits.reconstruction.settings.Inversion."
        )
    return checked_inversion(made)


def checked_inversion(settings: Inversion) -> Inversion:
    """Returns settings as their kinds; raises ValueError for values that they cannot have."""
    values = settings._asdict()
    for name, allowed in _CHOICES.items():
        values[name] = checked(name, values[name], Field(None, str, allowed))
    for name, (kind, interval) in _NUMBERS.items():
        values[name] = checked(name, values[name], Field(None, kind, interval))
    settings = Inversion(**values)
    if settings.box is not None:
        if settings.optimizer != "adam":
            raise ValueError(
                f"box = {shown(settings.box)} is kept by the optimizer 'adam' alone, since L-BFGS "
                "would learn from its steps what projections undo. Leave it out, or use geiping."
            )
        if len(settings.box) != 2 or not settings.box[0] < settings.box[1]:
            raise wrong("box", settings.box, "(least, largest)")
        settings = settings._replace(box=tuple(float(bound) for bound in settings.box))
    return settings
