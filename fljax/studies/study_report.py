"""The report of a study: as blocks of a page, as Markdown, and as closing lines."""

from __future__ import annotations

import datetime
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.compression.names import Code, Names, uplink_code
from fljax.compression.sizes import uplink_size
from fljax.compression.sparse import kept
from fljax.config.experiment import parameter_shapes
from fljax.core.files import atomic_file
from fljax.core.metrics import name_of, unit_of
from fljax.core.transforms import dense_bits
from fljax.core.values import brief
from fljax.recording.page import Block, Heading, Picture, Table, Text, Verbatim, markdown
from fljax.studies.columns import columns_of, table, with_sd
from fljax.studies.comparison import STUDY_TABLE, Comparison
from fljax.studies.launch import StudyRun
from fljax.studies.remarks import remarks
from fljax.studies.selection import Spread, edges
from fljax.studies.space import describe, identity
from fljax.studies.study import Study
from fljax.training.privacy_records import OF_CHOICES

REPORT = "report.md"
_REPEAT = "Reproduction"
_SPARSE = ("top_k", "rand_k")


def write_report(run: StudyRun, command: Sequence[str] = ()) -> list[Path]:
    """Draws a study that is complete and writes its report as Markdown.

    The page of HTML, which has curves as well, is that of `fljax.reports.write_report`.

    Args:
      run: The study.
      command: What was called, for the line that repeats it.

    Returns:
      The report's file and those of the pictures.

    Example:
      >>> found = fljax.sweep(config, workdir, axes=axes)  # doctest: +SKIP
      >>> studies.write_report(found)  # doctest: +SKIP
      >>> fljax.reports.write_report(found.directory)  # doctest: +SKIP
    """
    comparison, pictures, path = run.compare(), run.plot(), run.directory / REPORT
    page = blocks(run, comparison, pictures, command)
    with atomic_file(path) as file:
        file.write(markdown(page, run.directory).encode())
    return [path, *pictures]


def command_of(directory: Path) -> list[str]:
    """Returns the command that the report of a study repeats; nothing where it names none."""
    lines = _written(directory)
    behind = lines[lines.index(f"## {_REPEAT}") + 1 :] if f"## {_REPEAT}" in lines else []
    return next((shlex.split(line) for line in behind if line.startswith("    ")), [])


def pictures_of(directory: Path) -> list[Path]:
    """Returns the pictures that the report of a study shows, as far as they are there."""
    found = (re.fullmatch(r"!\[.*\]\((.+)\)", line) for line in _written(directory))
    return [path for shown in found if shown and (path := directory / shown[1]).exists()]


def _written(directory: Path) -> list[str]:
    path = directory / REPORT
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def blocks(
    run: StudyRun, comparison: Comparison, pictures: Sequence[Path], command: Sequence[str] = ()
) -> list[Block]:
    """Returns the content of a report."""
    study, config = run.study, run.config
    title = run.directory.resolve().name
    page: list[Block] = [Heading(f"{title} on {config['dataset']}" if config else title, 1)]
    if config:
        page.append(Text(_task(config, comparison)))
    page += [Text(_compared(comparison)), Table(table(comparison))]
    page.append(Text(_reading(comparison)))
    page += [Text(line) for line in (*_choice(run), *_of_privacy(comparison))]
    if said := remarks(comparison):
        page += [Heading("Remarks"), *map(Text, said)]
    page += [Picture(path, path.stem.replace("-", " ")) for path in pictures]
    if study.variants:
        rows = [[f"`{name}`", describe(values) or "–"] for name, values in study.variants.items()]
        page += [Heading("Variants"), Table([["variant", "keys"], *rows])]
    if config and (codes := sparse_codes(study.variants)):
        page += [Heading("Cost of positions"), *_positions(codes, config)]
    if command:
        page += [Heading(_REPEAT), Verbatim(shlex.join(command))]
    versions = ", ".join(f"{name} {number}" for name, number in run.summary["versions"].items())
    today = datetime.date.today().isoformat()
    page.append(Text(f"{run.summary['device']}; {versions}; {today}."))
    return page


def _task(config: Mapping[str, Any], comparison: Comparison) -> str:
    """Says what all trials share; nothing of keys that they differ in."""
    study = comparison.study
    varied = {key for values in study.variants.values() for key in values} | set(study.axes)
    options = {
        name: "".join(f", {key} {value}" for key, value in config[f"{name}_options"].items())
        for name in ("model", "dataset")
    }
    alpha = f"({config['alpha']:g})" if (config["partition"] or "").startswith("dirichlet") else ""
    # one's own data may have clients of their own, whatever the key says
    divided = f"partition {config['partition']}{alpha}"
    data = f"data {config['dataset']}" if ":" in config["dataset"] else divided
    work = "local_epochs" if config["local_epochs"] else "local_steps"
    plural = work.replace("_", " ") if config[work] != 1 else work.replace("_", " ")[:-1]
    phrases = [
        (("num_clients",), f"{config['num_clients']} clients"),
        (("partition", "alpha"), data + options["dataset"]),
        (("clients_per_round",), f"{config['clients_per_round']} a round"),
        (("num_rounds",), f"{config['num_rounds']} rounds"),
        ((work,), f"{config[work]} {plural} each"),
        (("batch_size",), f"batches of {config['batch_size']}"),
        (("model",), f"model {config['model']}{options['model']}"),
        (("algorithm",), f"{config['algorithm']}"),
        (("client_lr",), f"client learning rate {config['client_lr']}"),
    ]
    return (
        "; ".join(
            text for keys, text in phrases if not varied & set(keys) and config[keys[0]] is not None
        )
        + "."
    )


def _compared(comparison: Comparison) -> str:
    study, results = comparison.study, comparison.results
    trials = len(results.trials)
    seeds = len({trial.seed for trial in results.trials})
    parts = [f"{len(study.variants)} variants"] if study.variants else []
    parts += [f"{len({identity(t.values) for t in results.trials})} configurations of "
              f"{', '.join(study.axes)}"] if study.axes else []  # fmt: skip
    crossed = " × ".join([*parts, f"{seeds} seed{'s' * (seeds > 1)}"])
    shown = len(comparison.compared)
    best = f" The best {shown} of {len(comparison.ranked)} are listed."
    is_cut = not study.variants and not study.faced_axis and shown < len(comparison.ranked)
    listed = best if is_cut else ""
    return f"{crossed}: {trials} trials.{listed}"


def _reading(comparison: Comparison) -> str:
    """Says how the table is read."""
    study = comparison.study
    text = "Mean ± standard deviation over seeds. "
    if comparison.criterion.at == "last":
        text += f"Figures are those of the last round (`{comparison.headline}`). "
    elif comparison.criterion.metric == comparison.headline:
        text += f"Rounds are chosen by the metric itself (`{comparison.headline}`). "
    else:
        text += (
            f"Rounds are chosen by `{comparison.criterion.metric}` and reported by "
            f"`{comparison.headline}`. "
        )
    if study.faced_axis:
        text += _of_faced(study)
    elif study.variants and study.axes:
        text += "Of each variant the configuration that these choose is compared. "
    if study.reference:
        text += f"The *gap* to `{study.reference}` is taken seed by seed. "
    named = set(study.columns)
    if named & {"client_uplink_bytes", "uplink_factor", "uplink_to_target"}:
        text += (
            "Bytes are those of the messages from clients to the server, whose bits are counted "
            "exactly. "
        )
    if any(name.endswith("_to_target") for name in named):
        text += "No target was set. " if comparison.target is None else _target(comparison)
    if any(entry.diverged for entry in comparison.compared):
        text += (
            "Where trials *diverged*, as all clients of that round ended with a NaN or an "
            "infinity or the model's loss did, figures are those of the other seeds. "
        )
    reference = next((entry for entry in comparison.compared if entry.is_reference), None)
    if reference is not None and len(reference.diverged) == len(reference.outcomes):
        text += (
            f"All trials of `{study.reference}` diverged, so that the others cannot be measured "
            "against it: lower client_lr, and give another workdir."
        )
    return text.strip()


def _of_faced(study: Study) -> str:
    """Says how the table of a study is read that faces an axis."""
    text = f"Nobody chooses the {study.faced}: a row is judged over all. "
    named = set(columns_of(study))
    if named & {"false_positives", "false_negatives"}:
        text += (
            "Rejections are means over all rounds and every attack, of rules that reject clients. "
        )
    if "cost" in named:
        text += (
            "The last column compares the seconds of a round, as trials ran on this machine "
            f"without {study.faced}; compilation and evaluations do not count. "
        )
    return text


def _target(comparison: Comparison) -> str:
    key, metrics = comparison.target_key, comparison.metrics
    factor, _ = unit_of(key, metrics)
    return (
        f"The target is a {name_of(key, metrics)} of {factor * comparison.target:g}"
        f"{' %' * (factor != 1)}; where only some seeds reached it, their number stands behind the "
        "rounds, and figures are theirs. "
    )


def _choice(run: StudyRun) -> list[str]:
    """Says which configuration is best where axes were tried, and on which ends it lies."""
    best = run.best
    if best is None or not run.study.axes or run.study.faced_axis:
        return []
    if best["values"] is None:
        return [best["note"]]
    point = {**({"variant": best["variant"]} if "variant" in best else {}), **best["values"]}
    lines = [f"Best by `{best['metric']}`: {describe(point)}."]
    return lines + [f"*At the edge*: {edge}." for edge in edges(best["values"], run.study.axes)]


def _of_privacy(comparison: Comparison) -> list[str]:
    """Says what the epsilons of private trials do not cover."""
    private = [outcome for outcome in comparison.outcomes if outcome.epsilon is not None]
    if not private:
        return []
    return [
        f"*Privacy*: epsilon is that of one trial, of all its rounds. It does not cover "
        f"{OF_CHOICES}; here {len(private)} private trials were compared."
    ]


def report(run: StudyRun, command: Sequence[str] = ()) -> str:
    """Returns what a study found, what it cost, and where that lies; draws and writes it as well.

    Args:
      run: The study, complete or not.
      command: What was called, for the report's line that repeats it.

    Example:
      >>> print(studies.report(fljax.sweep(config, workdir, axes=axes)))  # doctest: +SKIP
    """
    results, costs = run.results, run.summary
    states = Counter(results.status(trial).state for trial in results.trials)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    lines = [f"{len(results.trials)} trials: {counted}", *_best_lines(run)]
    if costs["rounds"]:
        each = costs["training"] / costs["rounds"]
        lines.append(
            f"{costs['groups']} group(s), up to {costs['slots']} trials side by side: building "
            f"and compiling {costs['building'] + costs['compiling']:.1f} s, training "
            f"{costs['training']:.1f} s ({1e3 * each:.2f} ms a round of a trial), evaluating "
            f"{costs['evaluating']:.1f} s"
        )
    lines.append(f"study directory: {run.directory}")
    if not run.complete and not costs["complete"]:
        lines.append(
            f"Some trials are not over; the same command with --workdir={run.directory} goes on, a "
            "sweep's by --resume."
        )
        return "\n".join(lines)
    if not run.complete:
        ranks = ", ".join(map(str, run.missing))
        lines.append(
            f"The trials of this process are over, those of process {ranks} are missing: the last "
            "one to end writes the tables. One that failed goes on by --share=RANK/COUNT --resume."
        )
        return "\n".join(lines)
    if run.study.variants or run.study.faced_axis:
        lines.insert(0, markdown([Table(table(run.compare()))], run.directory))
    lines += _of_privacy(run.compare())
    lines.append(f"table: {run.directory / STUDY_TABLE}")
    for path in write_report(run, command):
        lines.append(f"{'plot' if path.suffix == '.png' else 'report'}: {path}")
    return "\n".join(lines)


def _best_lines(run: StudyRun) -> list[str]:
    best, criterion = run.best, run.study.criterion
    if best is None:
        return []
    if best["values"] is None:
        return [best["note"]]
    if run.study.faced_axis:
        return []
    point = {**({"variant": best["variant"]} if "variant" in best else {}), **best["values"]}
    lines = [f"best by {best['metric']}: {describe(point)}"]
    for key in dict.fromkeys((best["metric"], criterion.report)):
        if key in best:
            found = best[key]
            sd = math.nan if found["sd"] is None else found["sd"]
            over = f" over {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
            lines.append(
                f"  {key.removeprefix('eval/')}: {with_sd(Spread(found['mean'], sd))}{over}"
            )
    lines += [f"  edge: {edge}" for edge in edges(best["values"], run.study.axes)]
    if "note" in best:
        lines.append(f"  note: {best['note']}")
    return lines


def sparse_codes(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Code]:
    """Returns {text: code} of the variants that send coordinates at 32 bits each.

    What clients keep beside it changes nothing in a message: a code is there once.
    """
    codes = {}
    for overrides in variants.values():
        text, per_leaf = overrides.get("uplink", "none"), overrides.get("uplink_per_leaf", False)
        code = uplink_code(Names(uplink=text, uplink_per_leaf=per_leaf))
        if code is not None and len(code.calls) == 1 and code.calls[0].name in _SPARSE:
            codes[text + " per leaf" * per_leaf] = code
    return codes


def _positions(codes: Mapping[str, Code], config: Mapping[str, Any]) -> list[Block]:
    """Returns what positions cost; sizes of messages need the model, and so the data."""
    try:
        cells = positions(codes, parameter_shapes(config))
    except (OSError, ValueError) as error:
        return [Text(f"*Left out*: the data could not be loaded here ({brief(error)}).")]
    said = (
        "Bytes of a compressed update by index format, and how many times fewer than an "
        "update as it is; what an algorithm sends besides is not compressed. The last "
        "column is what runs send: `smallest` is raw or bitmap, whichever is smaller."
    )
    return [Text(said), Table(cells)]


def positions(codes: Mapping[str, Code], params: Any) -> list[list[str]]:
    """Returns the bytes of a message by format as texts, the head first.

    Args:
      codes: {text: code}, see `sparse_codes`.
      params: Of the model; shapes will do.
    """
    dense = dense_bits(params)
    coordinates = f"of {dense // 32:,} coordinates"
    rows = [[coordinates, "sent", "raw", "bitmap", "entropy bound", "sent as"]]
    for text, code in codes.items():
        size = uplink_size(code, params)
        count = sum(kept(call.arguments["fraction"], d) for call, d in code.steps(params))
        sizes = [(32 * count + bits) / 8 for bits in size.positions]
        sent_as = f"{code.calls[0].arguments['index_format']}: {size.bits / 8:,.0f}"
        cells = [f"{size:,.0f} ({dense / 8 / size:,.1f} x)" for size in sizes]
        rows.append([f"`{text}`", f"{count:,}", *cells, sent_as])
    return rows
