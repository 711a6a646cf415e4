"""The report of a study: one content, as Markdown, as a page of HTML, and as closing lines."""

from __future__ import annotations

import base64
import datetime
import html
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.config.experiment import parameter_shapes
from fljax.core.files import atomic_file
from fljax.studies import columns, positions
from fljax.studies.comparison import STUDY_TABLE, Comparison
from fljax.studies.launch import StudyRun
from fljax.studies.scales import name_of, unit_of
from fljax.studies.selection import edges
from fljax.studies.space import describe, identity

REPORTS = ("report.md", "report.html")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.85em; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3em 0.7em; text-align: right; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
code, pre { font: 0.92em ui-monospace, monospace; background: #f4f4f4; }
pre { padding: 0.8em; overflow-x: auto; }
img { max-width: 100%; }
"""


class Heading(NamedTuple):
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph; `code` and *emphasis* are written as in Markdown."""

    text: str


class Table(NamedTuple):
    """A table of texts, the head first."""

    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A picture in a file."""

    path: Path
    text: str


class Code(NamedTuple):
    """Lines as they are."""

    text: str


Block = Heading | Text | Table | Picture | Code


def write_report(run: StudyRun, command: Sequence[str] = ()) -> list[Path]:
    """Draws a study that is complete and writes its report, as Markdown and as HTML.

    Args:
      run: The study.
      command: What was called, for the line that repeats it.

    Returns:
      The report's files and those of the pictures.

    Example:
      >>> studies.write_report(fljax.sweep(config, workdir, axes=axes))  # doctest: +SKIP
    """
    comparison, pictures = run.compare(), run.plot()
    page = blocks(run, comparison, pictures, command)
    written = [run.directory / name for name in REPORTS]
    for path, text in zip(written, (markdown(page, run.directory), as_html(page)), strict=True):
        with atomic_file(path) as file:
            file.write(text.encode())
    return written + pictures


def blocks(
    run: StudyRun, comparison: Comparison, pictures: Sequence[Path], command: Sequence[str] = ()
) -> list[Block]:
    """Returns the content of a report."""
    study, config = run.study, run.config
    title = run.directory.resolve().name
    page: list[Block] = [Heading(f"{title} on {config['dataset']}" if config else title, 1)]
    if config:
        page.append(Text(_task(config, comparison)))
    page += [Text(_compared(comparison)), Table(columns.table(comparison))]
    page.append(Text(_reading(comparison)))
    page += [Text(line) for line in _choice(run)]
    page += [Picture(path, path.stem.replace("-", " ")) for path in pictures]
    if study.variants:
        rows = [[f"`{name}`", describe(values) or "–"] for name, values in study.variants.items()]
        page += [Heading("What variants change"), Table([["variant", "keys"], *rows])]
    if config and (codes := positions.sparse_codes(study.variants)):
        page += [
            Heading("What positions cost"),
            Text(
                "Bytes of a compressed update by index format, and how many times fewer than an "
                "update as it is; what an algorithm sends besides is not compressed. The last "
                "column is what runs send: `smallest` is raw or bitmap, whichever is smaller."
            ),
            Table(positions.table(codes, parameter_shapes(config))),
        ]
    if command:
        page += [Heading("How to repeat it"), Code(shlex.join(command))]
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
    alpha = f"({config['alpha']:g})" if config["partition"].startswith("dirichlet") else ""
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
    listed = best if not study.variants and shown < len(comparison.ranked) else ""
    return f"{crossed}: {trials} trials.{listed}"


def _reading(comparison: Comparison) -> str:
    """Says how the table is read."""
    study = comparison.study
    text = "Mean ± standard deviation over seeds. "
    if comparison.criterion.metric == comparison.headline:
        text += f"Rounds are chosen by the metric itself (`{comparison.headline}`). "
    else:
        text += (
            f"Rounds are chosen by `{comparison.criterion.metric}` and reported by "
            f"`{comparison.headline}`. "
        )
    if study.variants and study.axes:
        text += "Of each variant the configuration that these choose is compared. "
    if study.reference:
        text += f"The *gap* to `{study.reference}` is taken seed by seed. "
    named = set(study.columns)
    if named & {"client_uplink_bytes", "uplink_factor", "uplink_to_target"}:
        text += (
            "Bytes are those of the messages from clients to the server, whose bits are counted "
            "exactly. "
        )
    if named & {"rounds_to_target", "uplink_to_target", "transfer_to_target"}:
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
    if best is None or not run.study.axes:
        return []
    if best["values"] is None:
        return [best["note"]]
    point = {**({"variant": best["variant"]} if "variant" in best else {}), **best["values"]}
    lines = [f"Best by `{best['metric']}`: {describe(point)}."]
    return lines + [f"*At the edge*: {edge}." for edge in edges(best["values"], run.study.axes)]


def markdown(page: Sequence[Block], directory: Path) -> str:
    """Returns a page as Markdown; pictures are links that start from the directory."""
    texts = []
    for block in page:
        match block:
            case Heading():
                texts.append(f"{'#' * block.level} {block.text}")
            case Text():
                texts.append(block.text)
            case Table():
                head, *rows = (f"| {' | '.join(row)} |" for row in block.rows)
                rule = "|---|" + "---:|" * (len(block.rows[0]) - 1)
                texts.append("\n".join([head, rule, *rows]))
            case Picture():
                texts.append(f"![{block.text}]({block.path.relative_to(directory).as_posix()})")
            case Code():
                texts.append("\n".join(f"    {line}" for line in block.text.splitlines()))
    return "\n\n".join(texts) + "\n"


def as_html(page: Sequence[Block]) -> str:
    """Returns a page as HTML that needs no other file: pictures are part of it."""
    body = []
    for block in page:
        match block:
            case Heading():
                body.append(f"<h{block.level}>{_inline(block.text)}</h{block.level}>")
            case Text():
                body.append(f"<p>{_inline(block.text)}</p>")
            case Table():
                head, *rows = block.rows
                lines = [_line(head, "th"), *(_line(row, "td") for row in rows)]
                body.append("<table>\n" + "\n".join(lines) + "\n</table>")
            case Picture():
                data = base64.b64encode(block.path.read_bytes()).decode()
                text = html.escape(block.text)
                body.append(f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
            case Code():
                body.append(f"<pre>{html.escape(block.text)}</pre>")
    title = next((block.text for block in page if isinstance(block, Heading)), "")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _line(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>"


def _inline(text: str) -> str:
    """Returns a text as HTML: what stands between backticks is code, between stars stressed."""
    parts = re.split(r"`([^`]*)`", text)
    return "".join(
        f"<code>{html.escape(part)}</code>"
        if place % 2
        else re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", html.escape(part))
        for place, part in enumerate(parts)
    )


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
            f"{costs['groups']} group(s), up to {costs['slots']} trials together: building and "
            f"compiling {costs['building'] + costs['compiling']:.1f} s, training "
            f"{costs['training']:.1f} s ({1e3 * each:.2f} ms a round of a trial), evaluating "
            f"{costs['evaluating']:.1f} s"
        )
    lines.append(f"study directory: {run.directory}")
    if not run.complete and not costs["complete"]:
        lines.append("Some trials are not over; the same command goes on, a sweep's by --resume.")
        return "\n".join(lines)
    if not run.complete:
        ranks = ", ".join(map(str, run.missing))
        lines.append(
            f"The trials of this process are over, those of process {ranks} are missing: the last "
            "one to end writes the tables. One that failed goes on by --share=RANK/COUNT --resume."
        )
        return "\n".join(lines)
    if run.study.variants:
        lines.insert(0, markdown([Table(columns.table(run.compare()))], run.directory))
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
    point = {**({"variant": best["variant"]} if "variant" in best else {}), **best["values"]}
    lines = [f"best by {best['metric']}: {describe(point)}"]
    for key in dict.fromkeys((best["metric"], criterion.report)):
        if key in best:
            found = best[key]
            spread = "" if found["sd"] is None else f" ± {found['sd']:.4f}"
            over = f" over {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
            lines.append(f"  {key.removeprefix('eval/')}: {found['mean']:.4f}{spread}{over}")
    lines += [f"  edge: {edge}" for edge in edges(best["values"], run.study.axes)]
    if "note" in best:
        lines.append(f"  note: {best['note']}")
    return lines
