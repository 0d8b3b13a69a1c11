"""What is installed is what lies here, and the README's commands are the ones that are checked."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import find_packages

import lab
from lab.cli import VERBS

ROOT = Path(lab.__file__).resolve().parent.parent
PACKAGES = ("lab", "theory", "experiments", "paper_figs")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_package_is_covered(project: dict[str, Any]) -> None:
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    found = set(find_packages(str(ROOT), include=include))
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for file in (ROOT / package).rglob("__init__.py")
    }
    assert found == there


def test_every_module_lies_in_a_package() -> None:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file.parent} has no __init__.py"


def test_every_data_file_is_covered(project: dict[str, Any]) -> None:
    for package, patterns in project["tool"]["setuptools"]["package-data"].items():
        covered = {file for pattern in patterns for file in (ROOT / package).glob(pattern) if file.is_file()}
        needed = {
            file
            for suffix in (".yaml", ".html", ".safetensors", ".json", ".typed")
            for file in (ROOT / package).rglob(f"*{suffix}")
            if package == "lab" or "conf" in file.relative_to(ROOT).parts
        }
        assert needed <= covered


def test_versions_and_bounds(project: dict[str, Any]) -> None:
    about = project["project"]
    assert about["version"] == lab.__version__
    assert about["scripts"] == {"lab": "lab.cli:entry_point"}
    assert "torch>=2.6,<2.14" in about["dependencies"]
    assert not any("torch" in name for name in project["build-system"]["requires"])
    assert all(re.search(r"\bxfail|skip", name) is None for name in about["optional-dependencies"])


def test_ci_extracts_the_readme_test_command(readme: str) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = re.search(r"test_command=\$\((awk .*)\)$", script, re.MULTILINE)
    assert extraction is not None
    extracted = subprocess.run(
        ["bash", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    marked = re.search(r"<!-- test-command -->\n```bash\n(.+)\n```\n", readme)
    assert marked is not None and extracted == marked[1]
    assert extracted.endswith("-m pytest -n 2")
    assert script.rstrip().endswith('bash -euo pipefail -c "$test_command"')


def test_ci_is_executable_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_readme_names_every_verb(readme: str) -> None:
    assert [name for name in VERBS if f"`lab {name}" not in readme] == []


def test_shared_keys_are_each_explained() -> None:
    lines = (ROOT / "lab" / "conf" / "base.yaml").read_text(encoding="utf-8").splitlines()
    keys = {"name", "runs_dir", "resume", "clean", "seed", "threads", "dry_run"}
    assert set(yaml.safe_load("\n".join(lines))) - {"defaults"} == keys
    for index, line in enumerate(lines):
        if line.split(":")[0] in keys:
            assert lines[index - 1].startswith("# "), line
