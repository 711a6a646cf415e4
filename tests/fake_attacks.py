"""Studies of defences against attacks that never ran, for tests."""

from fljax.studies import grid, repeat
from fljax.studies.comparison import compare
from fljax.studies.results import Results, Status, row
from fljax.studies.study import Study


def attacked(defences, attacks, accuracy, *, seeds=(0, 1), named=True, more=None, **settings):
    """Returns the comparison of a study whose trials end with made-up numbers.

    Args:
      defences: Texts.
      attacks: Texts.
      accuracy: (defence, attack, seed) -> test accuracy, or None where the trial diverged.
      seeds: Of the study.
      named: Whether defences are variants, of which the first is the reference; else an axis.
      more: (defence, attack, seed) -> further entries of the last record.
      settings: Of the study.
    """
    axes = {"attack": attacks} if named else {"aggregator": defences, "attack": attacks}
    if named:
        settings["variants"] = {name: {"aggregator": name} for name in defences}
        settings.setdefault("reference", defences[0])
    study = Study(axes=axes, seeds=seeds, **settings)
    trials = repeat(grid(axes), seeds, tuple(study.variants) or ("",))
    rows, statuses, seconds = [], {}, {}
    for trial in trials:
        defence = trial.variant or trial.values["aggregator"]
        place = defence, trial.values["attack"], trial.seed
        reached = accuracy(*place)
        seconds[trial.number] = 1.0 + defences.index(defence) / 4
        if reached is None:
            rows.append(row(trial, {"round": 1, "eval/val/accuracy": 0.1, "train/loss": 0.1}))
            statuses[trial.number] = Status("diverged", 1)
            continue
        record = {"round": 2, "eval/val/accuracy": reached, "eval/test/accuracy": reached}
        rows.append(row(trial, record | (more(*place) if more else {})))
        statuses[trial.number] = Status("finished", 2)
    return compare(study, {}, Results(trials, rows, statuses), seconds, seconds)
