"""The files that start a run elsewhere, checked as far as can be done without a cluster."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipeline import __version__
from pipeline.arguments import build_parser

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"


def load(name: str) -> Any:
    return yaml.safe_load((JOBS / name).read_text())


def run_arguments(command: str) -> Any:
    """Parse the arguments of a command line that calls jobs/generate.py, as the command line would."""
    words = shlex.split(command)
    start = words.index("jobs/generate.py")
    return build_parser().parse_args(["run", *words[start + 1 :]])


def check_overrides(overrides: list[str]) -> None:
    """Every override names a field of the config, and its value has the field's type."""
    from omegaconf import OmegaConf

    from pipeline.config.schema import Config

    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist(overrides))
    for override in overrides:
        assert OmegaConf.select(merged, override.split("=")[0]) is not None


def test_the_rayjob_has_what_kuberay_requires() -> None:
    job = load("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    known = {
        "entrypoint", "entrypointNumCpus", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished", "activeDeadlineSeconds", "rayClusterSpec",
    }  # fmt: skip
    assert set(spec) <= known
    assert spec["shutdownAfterJobFinishes"] is True, "else a finished job holds its GPUs"
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "a string, as ray start takes it"
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        assert template["spec"]["restartPolicy"] == "Never", "autoscaler v2 refuses to reuse a pod"
        (container,) = template["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    """Versions by normalised name, as constraints.txt has them."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order: a word and what follows it."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


def test_the_ranges_of_versions_hold_what_is_pinned() -> None:
    for line in chain(project()["dependencies"], *project()["optional-dependencies"].values()):
        requirement = Requirement(line)
        if requirement.name != "lacuna":
            assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_versions_are_pinned_in_constraints_alone() -> None:
    for name in ("pyproject.toml", "Makefile", "Dockerfile"):
        assert "==" not in (ROOT / name).read_text().split("[tool", 1)[0], name


def test_the_cluster_files_use_the_ray_that_is_pinned() -> None:
    ray = pins()["ray"]
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == ray
    assert f":{ray}-" in load("cluster.yaml")["docker"]["image"]


def test_the_dockerfile_makes_the_image_that_the_rayjob_names() -> None:
    steps = instructions()
    of = {word: [text for step, text in steps if step == word] for word, _ in steps}
    (base,) = of["FROM"]
    python = re.fullmatch(r"python:([\d.]+)-.*", base)
    assert python
    assert python[1] in SpecifierSet(project()["requires-python"])
    cluster = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    pods = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    (containers,) = zip(*(pod["template"]["spec"]["containers"] for pod in pods), strict=True)
    assert {container["image"] for container in containers} == {f"REGISTRY/lacuna:{__version__}"}
    assert f"REGISTRY/lacuna:{__version__}" in (ROOT / "Dockerfile").read_text()
    assert of["WORKDIR"] == list({container["workingDir"] for container in containers})
    assert "wget" in of["RUN"][0], "KubeRay's probes call it"
    user = of["USER"][-1]
    assert user.isdigit(), "or runAsNonRoot cannot be checked"
    assert int(user) > 0
    assert [word for word, _ in steps][-2:] == ["USER", "CMD"]


def test_the_dockerfile_copies_what_there_is_and_installs_only_what_is_pinned() -> None:
    copied = [source for word, text in instructions() if word == "COPY" for source in text.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "pipeline", "configs", "jobs"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert all((ROOT / source).exists() and source not in ignored for source in copied)
    installs = [text for word, text in instructions() if word == "RUN" and "pip install" in text]
    assert installs
    assert all("-c constraints.txt" in text for text in installs)


def test_the_rayjobs_entrypoint_is_a_command_that_we_understand() -> None:
    spec = load("rayjob.yaml")["spec"]
    arguments = run_arguments(spec["entrypoint"])
    check_overrides(arguments.overrides)
    overrides = dict(override.split("=", 1) for override in arguments.overrides)
    assert overrides["output.path"].startswith("s3://")
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    assert int(overrides["cluster.workers.max"]) == group["maxReplicas"]
    assert overrides["cluster.device"] == "cuda", "auto would see a cluster that has no GPU yet"


def test_the_cluster_launchers_file_fits_its_schema() -> None:
    config = load("cluster.yaml")
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["available_node_types"]["gpu"]["max_workers"] == config["max_workers"]
    assert (JOBS.parent / "constraints.txt").exists()


def test_the_cluster_launchers_file_would_be_refused_with_a_typo() -> None:
    config = load("cluster.yaml") | {"max_worker": 3}
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(config, schema)


@pytest.mark.parametrize("script", sorted(path.name for path in JOBS.glob("*.sh")))
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", str(JOBS / script)], check=True)


def test_slurm_directives_are_before_the_first_command() -> None:
    lines = (JOBS / "slurm.sh").read_text().splitlines()
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert directives
    assert max(directives) < min(commands), "Slurm ignores those that come later"


def run_on_slurm(folder: Path, *, srun: str, ray: str) -> subprocess.CompletedProcess:
    """Run the script with scontrol, srun, ray and python replaced by scripts that note in ``calls`` how they were
    called. *srun* says what it does but for a host's name."""
    fakes = {
        "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\nn3\\n"; else echo "scontrol $*" >>"$LOG"; fi',
        "srun": f'case "$*" in *hostname*) echo 10.0.0.1 10.0.0.2;; *) {srun};; esac',
        "ray": ray,
        "python": 'echo "python $* RAY_ADDRESS=$RAY_ADDRESS" >>"$LOG"; exit 130',
    }
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, body in fakes.items():
        (binaries / name).write_text(f"#!/bin/sh\n{body}\n")
        (binaries / name).chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin", "LOG": str(folder / "calls"), "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "123456", "SLURM_CPUS_PER_TASK": "64",
        "SLURM_GPUS_PER_NODE": "h100:8", "TMPDIR": str(folder),
    }  # fmt: skip
    script = ["bash", str(JOBS / "slurm.sh"), "configs/sd21.yaml", "seed=3"]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=30)


def test_slurm_runs_on_a_fake_allocation(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    done = run_on_slurm(tmp_path, srun='echo "srun $*" >>"$LOG"', ray="exit 0")
    calls = log.read_text().splitlines()
    assert done.returncode == 130, done.stderr
    assert "python jobs/generate.py configs/sd21.yaml seed=3 RAY_ADDRESS=10.0.0.1:30368" in calls
    assert "scontrol requeue 123456" in calls
    (head,) = [call for call in calls if "--head" in call]
    (others,) = [call for call in calls if "--exclude=n1" in call]
    assert "-w n1" in head
    # 123456 % 4000 * 3 from 20000 on: none that another job's head has, or workers, or what a node has once
    assert "--port=30368 --dashboard-port=30369 --ray-client-server-port=30370" in head
    assert all(
        "--dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0" in call for call in (head, others)
    )
    assert "--nodes=2 --ntasks=2" in others
    assert all("--num-cpus=64 --num-gpus=8" in call for call in (head, others))


def test_a_head_that_does_not_start_ends_the_job_with_its_last_lines(tmp_path: Path) -> None:
    done = run_on_slurm(tmp_path, srun="echo 'OSError: AF_UNIX path too long'; exit 1", ray='[ "$1" != health-check ]')
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first == "OSError: AF_UNIX path too long"
    assert last.startswith("lacuna: the Ray head did not start on n1")
    assert "RAY_TMPDIR" in last
    assert not (tmp_path / "calls").exists(), "no run without a head"


def test_slurm_without_a_config_says_how_it_is_used() -> None:
    done = subprocess.run(
        ["bash", str(JOBS / "slurm.sh")], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 2
    assert "usage: sbatch jobs/slurm.sh CONFIG" in done.stderr


def test_the_entry_point_takes_what_lacuna_run_takes(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    done = subprocess.run(
        [sys.executable, str(JOBS / "generate.py"), str(missing)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lacuna: ")
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr
