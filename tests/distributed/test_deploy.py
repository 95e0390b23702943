"""The files of `deploy/`: each command in them is one that boxel and Ray understand."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from boxel.cli.label import LABEL
from boxel.cli.parser import Parser

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def parse(words):
    """Parse a command line of `boxel label`."""
    assert words[:2] == ["boxel", "label"]
    return Parser("label", LABEL).parse(words[2:])


def read_comments(name):
    """The comments of a file as one text, with continued lines joined."""
    lines = [line[1:] for line in (DEPLOY / name).read_text().splitlines() if line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


def test_the_command_in_a_container():
    command = re.search(
        r"-t boxel \.\n.*-t boxel:cuda .*\n +docker run .* boxel (boxel .*)", read_comments("Dockerfile")
    )
    assert parse(shlex.split(command[1]))["out"] == "masks.json"


def test_what_the_image_copies_is_what_the_package_needs(tmp_path):
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) /\S+$", text, re.M) for word in line.split()]
    project = (DEPLOY.parent / "pyproject.toml").read_text()
    assert {*copied} >= {"pyproject.toml", "src", *re.findall(r'^readme = "(.*)"', project, re.M)}
    assert all((DEPLOY.parent / name).exists() for name in copied)
    extras = re.search(r"^ARG EXTRAS=(.*)$", text, re.M)[1], re.search(r"EXTRAS=(\S+) \.$", text, re.M)[1]
    assert all(re.search(rf"^{name} = \[", project, re.M) for name in ",".join(extras).split(","))


def test_the_cluster_fits_the_schema_of_ray():
    ray, jsonschema = pytest.importorskip("ray"), pytest.importorskip("jsonschema")
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    schema = json.loads(Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    command = re.search(r"ray exec deploy/ray-cluster.yaml '(.*?)'", read_comments("ray-cluster.yaml"))
    given = parse(shlex.split(command[1]))
    assert given["engine"] == "ray" and given["out"] == "s3://BUCKET/masks/"


def test_the_job_of_slurm_starts_ray_on_all_nodes(tmp_path):
    fake = {
        "ray": 'echo "$*" "$RAY_AUTH_MODE" >&2',
        "scontrol": 'echo "$*" >&2; printf "node1\\nnode2\\n"',
        "srun": 'printf "%s\\n" "$@"',
    }
    for name, line in fake.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    done = subprocess.run(
        ["bash", DEPLOY / "label.slurm", "my boxes.parquet", "photos/", "masks/"],
        env=slurm | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "show hostnames node[1-2]\nget-auth-token --generate token\n"
    words = done.stdout.splitlines()
    place = words.index("--")
    assert words[:place] == shlex.split("ray symmetric-run --address node1:6379 --min-nodes 2 --num-cpus 8")
    given = parse(words[place + 1 :])
    assert (given["images"], given["out"], given["engine"]) == ("photos/", "masks/", "ray")
