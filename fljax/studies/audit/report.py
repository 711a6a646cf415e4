"""The report of an audit: who sees what, what protects it, what attacks achieve, what it costs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fljax.core.files import atomic_file
from fljax.recording.page import Block, Heading, Picture, Table, Text, Verbatim, as_html, markdown
from fljax.studies.audit import report_attacks
from fljax.studies.audit.cells import NOTHING, number, percent
from fljax.studies.audit.pictures import draw_epsilons, draw_rocs
from fljax.studies.audit.promises import least_epsilon
from fljax.studies.audit.report_attacks import VIEWS

PAGES = ("audit.md", "audit.html")
# Metrics of a table, at most: the first ones of the task.
_MOST_METRICS = 6


def write_audit_report(
    found: Mapping[str, Any], curves: Mapping[str, Any], workdir: Path
) -> list[Path]:
    """Draws an audit's pictures and writes its report, as Markdown and as HTML.

    Args:
      found: What `audit.json` holds.
      curves: {defence: curves}, see `fljax.studies.audit.verdicts`.
      workdir: Receives the files.

    Returns:
      The files of the report.
    """
    pictures = _draw(found, curves, workdir)
    page = blocks(found, pictures, workdir)
    written = [workdir / name for name in PAGES]
    for path, text in zip(written, (markdown(page, workdir), as_html(page)), strict=True):
        with atomic_file(path) as file:
            file.write(text.encode())
    return written


def _draw(found: Mapping[str, Any], curves: Mapping[str, Any], workdir: Path) -> dict[str, Path]:
    """Draws what there is to draw; returns {name: file}."""
    folder, pictures = workdir / "plots", {}
    folder.mkdir(parents=True, exist_ok=True)
    if any(of_view for of_defence in curves.values() for of_view in of_defence.values()):
        pictures["roc"] = folder / "roc.png"
        draw_rocs(curves, pictures["roc"])
    bounds = {
        name: bound
        for name, defence in found["defences"].items()
        if (bound := defence["bound"]) is not None
    }
    if bounds:
        pictures["epsilon"] = folder / "epsilon.png"
        draw_epsilons(bounds, pictures["epsilon"])
    return pictures


def blocks(found: Mapping[str, Any], pictures: Mapping[str, Path], workdir: Path) -> list[Block]:
    """Returns the content of a report.

    Args:
      found: What `audit.json` holds.
      pictures: {"roc" or "epsilon": file}.
      workdir: Where the defences have their folders.
    """
    defences, settings = found["defences"], found["settings"]
    page: list[Block] = [Heading(f"Audit of {found['data']['name']}", 1), Text(_asked(found))]
    page += [Heading("Findings"), *map(Text, _findings(defences))]
    page += [Heading("Observers"), *_threats(defences)]
    page += [Heading("Protection"), *_protection(defences)]
    if settings["views"]:
        page += [Heading("Membership"), *report_attacks.membership(defences, settings)]
    if "roc" in pictures:
        page.append(Picture(pictures["roc"], "true over false positives of attacks on membership"))
    page += report_attacks.bounds(defences, pictures) + report_attacks.canaries(defences)
    page += report_attacks.secrets(defences)
    page += report_attacks.reconstruction(defences, workdir)
    page += report_attacks.inversion(defences, workdir)
    page += [Heading("Utility"), *_utility(defences)]
    page += [Heading("Data"), *(Verbatim(found["data"][name]) for name in ("described", "checks"))]
    page += [Heading("Limits"), *map(Text, _not_claimed(defences))]
    if found["command"]:
        page += [Heading("Reproduction"), Verbatim(shlex.join(found["command"]))]
    numbers = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    page.append(Text(f"Seed {settings['seed']}; {numbers}; {found['date']}."))
    return page


def _asked(found: Mapping[str, Any]) -> str:
    settings, data = found["settings"], found["data"]
    unit = {"row": "rows", "client": "clients, all of their rows together"}[settings["unit"]]
    return (
        f"{data['clients']} clients hold {data['rows']:,} rows. Membership is asked of "
        f"{data['targets']:,} of them, {unit}: {settings['shadows']} federations train without a "
        "half of these each, and each is attacked with the help of all others. False positives are "
        "targets that a federation did not train on and that an attack takes for members."
    )


def findings(found: Mapping[str, Any]) -> str:
    """Returns the findings of an audit as lines for people.

    Args:
      found: What `audit.json` holds.
    """
    return "\n".join(line.replace("*", "") for line in _findings(found["defences"]))


def _findings(defences: Mapping[str, Any]) -> list[str]:
    """Returns a sentence or two on each defence: its strongest attack, epsilon, and its use."""
    said = []
    for name, defence in defences.items():
        strongest = _strongest(defence)
        parts = [f"*{name}*:"]
        if strongest is not None:
            view, attack, judged = strongest
            rate = judged["pooled"]["rates"][-1]
            parts.append(
                f"the strongest attack on membership is `{attack}` on {VIEWS[view]}, AUC "
                f"{number(judged['pooled']['auc'])}, which finds {percent(rate['tpr'])} of the "
                f"members at {percent(rate['asked'])} false positives;"
            )
        bound = defence["bound"]
        if bound is not None:
            promised = bound["promised"]
            what = "nothing is promised" if promised is None else f"promised {number(promised)}"
            parts.append(f"epsilon is at least {number(bound['epsilon'])} ({what});")
        if found := defence["canaries"]:
            mean = sum(found["one_run"]) / found["runs"]
            parts.append(
                f"canary clients of {found['runs']} runs prove an epsilon of {number(mean)} on "
                f"average (promised {number(found['promised'])});"
            )
        test = defence["utility"]["test"]
        metric = next(iter(test), None)
        if metric is not None:
            parts.append(f"test {metric.replace('_', ' ')} {number(test[metric])}.")
        said.append(" ".join(parts))
    return said


def _strongest(defence: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]] | None:
    """Returns (view, attack, what it achieves) of the largest area, among what somebody sees."""
    # who sees updates can add them up
    seen = {party["view"] for party in defence["parties"]} | {"sums"}
    known = [
        (view, attack, judged)
        for view, of_view in defence["membership"].items()
        if view in seen
        for attack, judged in of_view.items()
        if judged["pooled"]["auc"] is not None
    ]
    return max(known, key=lambda entry: entry[2]["pooled"]["auc"], default=None)


def _threats(defences: Mapping[str, Any]) -> list[Block]:
    page: list[Block] = []
    for name, defence in defences.items():
        rows = [["who", "sees", "what hides the rest", "attacked below as"]]
        for party in defence["parties"]:
            view = VIEWS[party["view"]]
            rows.append([party["name"], party["sees"], party["hidden"], view])
        page += [Text(f"*{name}*{_changes(defence)}"), Table(rows)]
    return page


def _changes(defence: Mapping[str, Any]) -> str:
    changes = ", ".join(f"`{key} = {value}`" for key, value in defence["changes"].items())
    return f" ({changes})" if changes else ""


def _protection(defences: Mapping[str, Any]) -> list[Block]:
    rows = [["defence", "epsilon", "delta", "of one", "noise multiplier", "clipping norm"]]
    said = []
    for name, defence in defences.items():
        spent = defence["privacy"]
        if spent is None:
            rows.append([name, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING])
            continue
        numbers = (
            least_epsilon(spent),
            spent["delta"],
            spent["noise_multiplier"],
            spent["clip_norm"],
        )
        first, *others = map(number, numbers)
        rows.append([name, first, others[0], spent["unit"], *others[1:]])
        said.append(Text(f"*{name}*: it covers {spent['covers']}. Sampling: {spent['sampling']}."))
        said.append(Text("Not covered: " + "; ".join(spent["not_covered"]) + "."))
        if by_client := spent.get("epsilon_by_client"):
            each = ", ".join(f"{client} {number(value)}" for client, value in by_client.items())
            said.append(Text(f"Epsilon by client: {each}."))
    return [Table(rows), *said]


def _utility(defences: Mapping[str, Any]) -> list[Block]:
    """Returns tables of metrics on test rows: of all, of each client, of groups of rows."""
    names = next(iter(defences.values()))["utility"]["metrics"][:_MOST_METRICS]
    rows = [["defence", *map(_heading, names)]]
    for name, defence in defences.items():
        utility = defence["utility"]
        for label, values in ((name, utility["test"]), *_baselines(name, utility)):
            rows.append([label, *(number(values.get(metric)) for metric in names)])
    kinds = {defence["utility"]["of"] for defence in defences.values()}
    own = " Each client's rows are judged by its own model." if "personal" in kinds else ""
    page: list[Block] = [Text(f"Test rows, after the last round.{own}"), Table(rows)]
    clients = [
        [name, one["client"], str(one["examples"]), *(number(one.get(each)) for each in names)]
        for name, defence in defences.items()
        for one in defence["utility"]["clients"]
    ]
    if clients:
        head = ["defence", "client", "rows", *map(_heading, names)]
        page += [Text("By client."), Table([head, *clients])]
    groups = {
        key for defence in defences.values() for key in defence["utility"]["groups"]
        if key.rpartition("/")[2] in names or key.count("/") < 2
    }  # fmt: skip
    if groups:
        head = ["group and metric", *defences]
        lines = [
            [key.replace("/", " ")]
            + [number(defence["utility"]["groups"].get(key)) for defence in defences.values()]
            for key in sorted(groups)
        ]
        page += [Text("By groups of rows."), Table([head, *lines])]
    return page


def _baselines(name: str, utility: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{name}: {baseline.replace('_', ' ')}", values)
        for baseline, values in utility["baselines"].items()
    ]


def _not_claimed(defences: Mapping[str, Any]) -> list[str]:
    """Returns the sentences of all defences, each once, and of which it holds if not of all."""
    said: dict[str, list[str]] = {}
    for name, defence in defences.items():
        for sentence in defence["not_claimed"]:
            said.setdefault(sentence, []).append(name)
    return [
        sentence if len(names) == len(defences) else f"*{', '.join(names)}*: {sentence}"
        for sentence, names in said.items()
    ]


def _heading(metric: str) -> str:
    return metric.replace("_", " ")
