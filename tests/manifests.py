"""Reads what `deploy/` holds, and says what is wrong with a manifest of Kubernetes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
VERSION = "1.37"
_JOBSET = yaml.safe_load((Path(__file__).parent / "deploy" / "jobset.yaml").read_text())


def documents(name: str) -> list[dict[str, Any]]:
    """Returns the documents of a file in `deploy/`."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def kubernetes() -> dict[str, dict[str, Any]]:
    """Returns {"FILE KIND": manifest} of all manifests."""
    return {
        f"{path.stem} {manifest['kind']}": manifest
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for manifest in documents(f"kubernetes/{path.name}")
    }


def check(manifest: dict[str, Any]) -> None:
    """Checks a manifest strictly: no key, type or missing field gets past.

    kubernetes-validate knows nothing of a JobSet and warns at most, so that its own fields are
    checked by its definition, and the template of each of its jobs as a Job.

    Raises:
      jsonschema.ValidationError: Something is wrong.
    """
    if manifest["kind"] != "JobSet":
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        return
    jsonschema.validate(manifest, _JOBSET)
    for replicated in manifest["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job"} | replicated["template"]
        kubernetes_validate.validate(job, VERSION, strict=True)


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec of a Job, or of a JobSet's only one."""
    spec = manifest["spec"]
    if manifest["kind"] == "Job":
        return spec
    (replicated,) = spec["replicatedJobs"]
    return replicated["template"]["spec"]


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the only container of a Job's pods, or of a JobSet's."""
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    return container


def flag(container: dict[str, Any], name: str) -> str | None:
    """Returns the value of a flag of a container's command; None where it is absent."""
    found = [text for text in container["args"] if text.startswith(f"--{name}=")]
    return found[0].partition("=")[2] if found else None


def commands() -> dict[str, list[str]]:
    """Returns {where it stands: arguments of fljax} of all commands in `deploy/`."""
    found = {
        name: container_of(manifest)["args"]
        for name, manifest in kubernetes().items()
        if manifest["kind"] in ("Job", "JobSet")
    }
    (compose,) = documents("compose.yaml")
    found |= {f"compose {name}": of["command"] for name, of in compose["services"].items()}
    for path in [*sorted((DEPLOY / "slurm").glob("*.sbatch")), DEPLOY / "Dockerfile"]:
        text = path.read_text().replace("\\\n", " ")
        for number, call in enumerate(re.findall(r"^(?:srun|#   docker run) .*", text, re.M)):
            words = shlex.split(call.partition("||")[0])
            start = next(n for n, word in enumerate(words) if re.fullmatch("fljax(:.*)?", word))
            found[f"{path.name} {number}"] = words[start + 1 :]
    return found
