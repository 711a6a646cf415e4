"""Workflows run what the Makefile has, on the Pythons that are promised.

Their syntax is checked by GitHub's schemas, which `make check-github` brings.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def jobs(workflow: Path) -> dict:
    return yaml.safe_load(workflow.read_text())["jobs"]


def values_of(job: dict, text: str) -> list[str]:
    """Returns a text of a job, once for each value of the matrix that it names."""
    if not (name := re.search(r"\$\{\{ matrix\.(\w+) \}\}", text)):
        return [text]
    return [text.replace(name[0], value) for value in job["strategy"]["matrix"][name[1]]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_that_exist(workflow):
    lines = [
        line
        for job in jobs(workflow).values()
        for step in job["steps"]
        for line in values_of(job, step.get("run", ""))
        if line.startswith("make ")
    ]
    assert lines
    for line in lines:
        goals = [word for word in line.split()[1:] if "=" not in word]
        assert goals and set(goals) <= TARGETS, line


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_end_and_may_do_no_more_than_they_must(workflow):
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(workflow).items():
        assert job["timeout-minutes"] <= 90, name
        more = {"id-token": "write"} if name == "publish" else None
        assert job.get("permissions") == more, name


def test_all_promised_pythons_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    ci = jobs(ROOT / ".github/workflows/ci.yml")
    assert ci["test"]["strategy"]["matrix"]["python"] == promised
    makefile = (ROOT / "Makefile").read_text()
    tried = re.findall(r"^(?:OLDEST|NEWEST)_PYTHON \?= (.*)$", makefile, re.MULTILINE)
    assert tried == [promised[0], promised[-1]]


def test_continuous_integration_runs_what_contributors_are_told_to_run():
    said = re.findall(
        r"^make (.*?)(?:  .*)?$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    said = {target for line in said for target in line.split()}
    assert said <= TARGETS
    ci = jobs(ROOT / ".github/workflows/ci.yml")
    ran = {
        line.split()[1]
        for job in ci.values()
        for step in job["steps"]
        for line in values_of(job, step.get("run", ""))
        if line.startswith("make ")
    }
    # `test` lints, and has the tests of `check`
    assert said - {"format", "lint", "check"} == ran


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_what_answers_need(form):
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_change_that_is_offered_is_asked_for_its_proof():
    text = (ROOT / ".github/pull_request_template.md").read_text()
    for path in re.findall(r"`?((?:fljax/|CHANGELOG)[\w/.]*\.(?:py|md))`?", text):
        assert (ROOT / path).is_file(), path
