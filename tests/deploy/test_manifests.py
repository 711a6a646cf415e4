"""Manifests and scripts of `deploy/`: good ones pass, broken ones fail, and they say what is so."""

import copy
import re
from pathlib import Path

import jsonschema
import manifests
import pytest
import yaml

from fljax.commands.console import COMMANDS
from fljax.config.schema import FIELDS

ROOT = manifests.DEPLOY.parent
KUBERNETES = manifests.kubernetes()
POD = ("spec", "template", "spec")
IN_JOBSET = ("spec", "replicatedJobs", 0, "template")
# (manifest, path to what is changed, what it becomes; None: it is left out)
BROKEN = {
    "Job, a typo": ("job Job", ("spec", "backoffLimits"), 3),
    "Job, a typo in a container": ("job Job", (*POD, "containers", 0, "argz"), ["run"]),
    "Job, a wrong type": ("job Job", (*POD, "terminationGracePeriodSeconds"), "two minutes"),
    "Job, no template": ("sweep Job", ("spec", "template"), None),
    "Service, a wrong type": ("hosts Service", ("spec", "publishNotReadyAddresses"), "yes"),
    "JobSet, a typo": ("jobset JobSet", ("spec", "failurePolicy", "maxRestart"), 3),
    "JobSet, a typo in its job": ("jobset JobSet", (*IN_JOBSET, "spec", "completion"), 2),
    "JobSet, a typo in its pods": ("jobset JobSet", (*IN_JOBSET, *POD, "containerz"), []),
    "JobSet, a wrong type": ("jobset JobSet", ("spec", "replicatedJobs", 0, "replicas"), "1"),
    "JobSet, an unknown action": (
        "jobset JobSet", ("spec", "failurePolicy", "rules", 0, "action"), "Restart",
    ),
    "JobSet, no name of a job": ("jobset JobSet", ("spec", "replicatedJobs", 0, "name"), None),
    "JobSet, no name of a container": (
        "jobset JobSet", (*IN_JOBSET, *POD, "containers", 0, "name"), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KUBERNETES)
def test_manifests_are_valid(name):
    manifests.check(KUBERNETES[name])


@pytest.mark.parametrize("what", BROKEN)
def test_broken_ones_are_not(what):
    name, (*path, key), value = BROKEN[what]
    manifest = copy.deepcopy(KUBERNETES[name])
    place = manifest
    for step in path:
        place = place[step]
    if value is None:
        del place[key]
    else:
        place[key] = value
    with pytest.raises(jsonschema.ValidationError):
        manifests.check(manifest)


def pods():
    return [name for name in KUBERNETES if KUBERNETES[name]["kind"] in ("Job", "JobSet")]


@pytest.mark.parametrize("name", pods())
def test_pods_have_no_rights_and_time_to_save(name):
    container, job = (of(KUBERNETES[name]) for of in (manifests.container_of, manifests.job_of))
    pod = job["template"]["spec"]
    user = re.search(r"^USER (\d+):", (manifests.DEPLOY / "Dockerfile").read_text(), re.M)[1]
    assert pod["securityContext"]["runAsNonRoot"] and pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"memory", "cpu"} <= container["resources"]["requests"].keys()
    assert "--resume" in container["args"]
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", "fljax") == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    claim, *_ = [of["persistentVolumeClaim"] for of in pod["volumes"] if of["name"] == "shared"]
    assert claim["claimName"] == KUBERNETES["storage PersistentVolumeClaim"]["metadata"]["name"]


@pytest.mark.parametrize("name", ["hosts Job", "jobset JobSet"])
def test_as_many_processes_as_pods(name):
    container, job = (of(KUBERNETES[name]) for of in (manifests.container_of, manifests.job_of))
    assert job["completionMode"] == "Indexed"
    processes = int(manifests.flag(container, "num_processes"))
    assert processes == job["completions"] == job["parallelism"] > 1
    assert manifests.flag(container, "process_id") == "$(JOB_COMPLETION_INDEX)"


def test_the_pods_of_a_job_find_the_first_one():
    service, job = KUBERNETES["hosts Service"], KUBERNETES["hosts Job"]
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert service["metadata"]["name"] == subdomain and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    address = manifests.flag(manifests.container_of(job), "coordinator_address")
    assert address == f"{name}-0.{subdomain}:{service['spec']['ports'][0]['port']}"


def test_the_pods_of_a_jobset_find_the_first_one():
    jobset = KUBERNETES["jobset JobSet"]
    assert (
        jobset["spec"]["coordinator"]["replicatedJob"]
        == (jobset["spec"]["replicatedJobs"][0]["name"])
    )
    container = manifests.container_of(jobset)
    told = {of["name"]: of.get("valueFrom") for of in container["env"]}
    path = told["COORDINATOR"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    port = container["ports"][0]["containerPort"]
    assert manifests.flag(container, "coordinator_address") == f"$(COORDINATOR):{port}"


def test_shares_of_a_sweep_know_how_many_they_are():
    sweep = KUBERNETES["sweep Job"]
    told = {of["name"]: of["value"] for of in manifests.container_of(sweep)["env"]}
    assert int(told["JOB_COMPLETIONS"]) == sweep["spec"]["completions"]


@pytest.mark.parametrize("where", manifests.commands())
def test_commands_and_flags_exist(where):
    name, config, *given = manifests.commands()[where]
    module = ROOT / Path(*COMMANDS[name].module.split(".")).with_suffix(".py")
    source = module.read_text() + (module.parent / "studies.py").read_text()
    if not config.startswith("$"):
        assert (ROOT / "configs" / f"{config}.py").exists()
    for text in given:
        flag, _, value = text.removeprefix("--").partition("=")
        if text == "${@:3}":  # what follows in the command line
            continue
        if flag.startswith("config."):
            FIELDS[flag.removeprefix("config.")].kind(value)
        else:
            assert f'"{flag}"' in source, f"{where}: {text}"


# what others than fljax read, and what is read here alone
OTHERS = {
    "COORDINATOR": "the manifest's own arguments",
    "DEBIAN_FRONTEND": "apt",
    "FLJAX_ACCELERATOR": "compose.yaml",
    "MPLCONFIGDIR": "matplotlib",
    "PATH": "the shell",
    "PIP_DISABLE_PIP_VERSION_CHECK": "pip",
    "PIP_NO_CACHE_DIR": "pip",
    "XDG_CACHE_HOME": "libraries that keep what they find",
}


def variables():
    """Returns the names of the environment variables that `deploy/` sets."""
    found = {
        variable["name"] for name in pods()
        for variable in manifests.container_of(KUBERNETES[name])["env"]
    }  # fmt: skip
    found |= set(re.findall(r"\$\{(\w+):-", (manifests.DEPLOY / "compose.yaml").read_text()))
    dockerfile = (manifests.DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    for line in re.findall(r"^ENV (.*)$", dockerfile, re.M):
        found |= set(re.findall(r"(\w+)=", line))
    return found


def test_variables_are_read():
    source = "".join(path.read_text() for path in (ROOT / "fljax").rglob("*.py"))
    unread = {name for name in variables() - OTHERS.keys() if f'"{name}"' not in source}
    assert not unread and {"FLJAX_CACHE_DIR", "JOB_COMPLETIONS"} <= variables()


def test_services_and_overrides_of_compose_fit():
    (compose,), (gpu,) = (
        manifests.documents("compose.yaml"),
        manifests.documents("compose.gpu.yaml"),
    )
    assert gpu["services"].keys() == compose["services"].keys()
    for service in compose["services"].values():
        named = {of.partition(":")[0] for of in service["volumes"]} - {"${FLJAX_DATA_DIR"}
        assert named <= compose["volumes"].keys()


def test_the_locks_hold_what_is_asked_for():
    """Versions are those of constraints.txt, every line has its hash, and nothing is missing."""
    pins = {}
    for name in ("cpu", "cuda12", "cuda13", "build"):
        text = (manifests.DEPLOY / "locks" / f"{name}.txt").read_text()
        pins[name] = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.M))
        assert text.count("==") == len(pins[name]) == len(re.findall(r"== ?\S+ \\\n +--hash", text))
    assert not pins["cpu"].keys() & pins["cuda12"].keys() and "jax-cuda12-plugin" in pins["cuda12"]
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    tested = {normal(name): version for name, version in tested.items()}
    assert {name: version for name, version in pins["cpu"].items() if name in tested} == {
        name: version for name, version in tested.items() if name in pins["cpu"]
    }
    project = (ROOT / "pyproject.toml").read_text()
    needed = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)[1]
    names = {normal(name) for name in re.findall(r'^  "([\w.-]+)', needed, re.M)}
    assert names and names <= pins["cpu"].keys(), "run make lock"


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", sorted((manifests.DEPLOY / "slurm").glob("*")), ids=str)
def test_jobs_of_slurm_are_told_before_their_time_is_over(path):
    text = path.read_text()
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert directives["signal"] == "TERM@120" and "requeue" in directives
    assert "--resume" in text and "scontrol requeue" in text
    # behind the first command Slurm reads no directive
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")


def test_the_definition_of_a_jobset_is_closed():
    definition = yaml.safe_load(Path(__file__).with_name("jobset.yaml").read_text())

    def objects(node):
        if isinstance(node, dict):
            if "properties" in node:
                yield node
            for value in node.values():
                yield from objects(value)

    assert len(list(objects(definition))) > 8
    assert all(node["additionalProperties"] is False for node in objects(definition))
