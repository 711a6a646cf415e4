"""The parts of an audit's report that tell of attacks: a table each, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fljax.recording.page import Block, Heading, Picture, Table, Text
from fljax.studies.audit.cells import NOTHING, interval, number, percent, spread
from fljax.studies.audit.settings import FEW_SHADOWS

VIEWS = {
    "model": "the released model",
    "rounds": "models of several rounds",
    "updates": "updates of single clients",
    "sums": "sums of updates",
}


def membership(defences: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Block]:
    """Returns what attacks on membership achieve, of each defence and view."""
    rows = [["defence", "attacker sees", "attack", "AUC", "sd", "found at .1 %", "found at 1 %"]]
    skipped = []
    for name, defence in defences.items():
        for view, of_view in defence["membership"].items():
            for attack, judged in of_view.items():
                pooled = judged["pooled"]
                deviation = judged["spread"]["auc"]["sd"]
                rows.append(
                    [name, VIEWS[view], f"`{attack}`", number(pooled["auc"]), number(deviation)]
                    + [interval(rate) for rate in pooled["rates"]]
                )
        for view, why in defence["skipped"].items():
            skipped.append(Text(f"*{name}*, {VIEWS[view]}: not looked at. {why}"))
    note = (
        "AUC and what is found are those of all federations together, with one threshold; sd is "
        "that of the AUC over federations. In brackets are intervals of Clopper and Pearson at "
        "95 %, of these rows and federations."
    )
    if settings["unit"] == "client":
        note += " Members are clients."
    if settings["shadows"] < FEW_SHADOWS or settings["design"] == "balanced":
        note += (
            " An attack by shadow federations that knows nothing is below chance here, since a "
            "member is in fewer of the others than one who is not: take more shadows, left out by "
            "coins, for numbers that count."
        )
    return [Table(rows), Text(note), *skipped, *_released(defences)]


def _released(defences: Mapping[str, Any]) -> list[Block]:
    """Returns what attacks achieve on the models of the runs themselves."""
    rows = [["defence", "attack", "AUC", "found at .1 %", "found at 1 %"]]
    rows += [
        [name, f"`{attack}`", number(judged["auc"]), *map(interval, judged["rates"])]
        for name, defence in defences.items()
        for attack, judged in defence["released"].items()
    ]
    if len(rows) == 1:
        return []
    said = (
        "The same of the model that the run of all rows has left: targets, which it trained on, "
        "beside rows of the test split."
    )
    return [Text(said), Table(rows)]


def bounds(defences: Mapping[str, Any], pictures: Mapping[str, Path]) -> list[Block]:
    """Returns what attacks prove of epsilon, beside what is promised."""
    rows = [["defence", "proved, at least", "confidence", "promised, at most", "by the attack"]]
    assumed: list[str] = []
    for name, defence in defences.items():
        if (bound := defence["bound"]) is None:
            continue
        promised = NOTHING if bound["promised"] is None else number(bound["promised"])
        confidence = percent(bound["confidence"])
        rows.append([name, number(bound["epsilon"]), confidence, promised, f"`{bound['attack']}`"])
        assumed += [sentence for sentence in bound["assumes"] if sentence not in assumed]
    if len(rows) == 1:
        return []
    page: list[Block] = [Heading("Epsilon that attacks prove"), Table(rows)]
    assumed.append("A promise stands here if it is one to the unit that is audited.")
    page.append(Text(" ".join(assumed)))
    if "epsilon" in pictures:
        page.append(Picture(pictures["epsilon"], "epsilon, proved and promised"))
    return page


def canaries(defences: Mapping[str, Any]) -> list[Block]:
    """Returns what canary clients prove; promises are measured by that of the first defence."""
    known = {name: found for name, one in defences.items() if (found := one["canaries"])}
    if not known:
        return []
    claimed = next(iter(known.values()))["promised"]
    bounds = {"one_run": "one run", "trials": "as trials", "gaussian": "as Gaussian trials"}
    rows = [
        ["defence", "runs", "promised", *bounds.values(), "estimate", "above the first promise"]
    ]
    for name, found in known.items():
        above = sum(claimed is not None and value > claimed for value in found["one_run"])
        numbers = [spread(found[kind]) for kind in (*bounds, "estimate")]
        promised = number(found["promised"])
        rows.append([name, str(found["runs"]), promised, *numbers, f"{above} of {found['runs']}"])
    said = (
        "Some clients send random directions, or by a coin nothing; these are looked for in the "
        "released model. Lower bounds at 95 %, mean (least to largest) over runs: that of one run "
        "needs fair coins alone, and is counted in the last column; the others take canaries of a "
        "run for independent trials, and the mechanism for Gaussian. The estimate is no bound."
    )
    return [Heading("Canary clients"), Table(rows), Text(said)]


def secrets(defences: Mapping[str, Any]) -> list[Block]:
    """Returns how far secrets are exposed, by how often they were trained on."""
    known = {name: found for name, one in defences.items() if (found := one["secrets"])}
    if not known:
        return []
    first = next(iter(known.values()))
    rows = [["defence", *(f"{copies} ×" for copies in first["exposure"])]]
    rows += [[name, *map(spread, found["exposure"].values())] for name, found in known.items()]
    said = (
        f"Exposure in bits, mean (least to largest), of random texts of {first['length']} tokens, "
        "by how often each stands among the rows of its client: how much likelier the model finds "
        "it than texts that nobody holds (Carlini et al. 2019). A text that nobody holds has 1.4 "
        "bits on average."
    )
    return [Heading("Secrets in the language model"), Text(said), Table(rows)]


def reconstruction(defences: Mapping[str, Any], workdir: Path) -> list[Block]:
    """Returns how near attackers come to rows that clients have trained on."""
    page: list[Block] = []
    rows = [["defence", "what is sent", "attack", "rows", "PSNR (dB)", "SSIM", "labels right"]]
    for name, defence in defences.items():
        for case in defence["reconstruction"]:
            numbers = [spread(case["psnr"]), spread(case["ssim"]), percent(case["labels"])]
            rows.append([name, case["sent"], f"`{case['attack']}`", str(case["rows"]), *numbers])
            if case["picture"]:
                place = workdir / defence["folder"] / case["picture"]
                page += [Text(f"*{name}*: {case['sent']}, `{case['attack']}`."), Picture(place, "")]
    if len(rows) == 1:
        return []
    return [Heading("Rows drawn again from what clients send"), Table(rows), *page]


def inversion(defences: Mapping[str, Any], workdir: Path) -> list[Block]:
    """Returns what released models hold to be typical of classes."""
    known = {name: found for name, one in defences.items() if (found := one["inversion"])}
    if not known:
        return []
    rows = [["defence", "classes", "nearest to their own mean", "PSNR to it (dB)"]]
    pictures: list[Block] = []
    for name, found in known.items():
        nearest = percent(found["nearest"])
        rows.append([name, str(found["classes"]), nearest, spread(found["psnr"])])
        if found["picture"]:
            place = workdir / defences[name]["folder"] / found["picture"]
            pictures += [Text(f"*{name}*: means of classes, and what the model holds for them."),
                         Picture(place, "inverted classes")]  # fmt: skip
    said = (
        "Rows of which the released model is as sure as can be, class by class (Fredrikson et al. "
        "2015). They are nobody's rows, but what those of a class have in common."
    )
    return [Heading("The released model, inverted"), Text(said), Table(rows), *pictures]
