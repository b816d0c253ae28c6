"""Writes requirements.lock: every version that a set-up may install, on every platform that we promise.

Why two resolutions: on this machine torch may come without CUDA; a user's Linux installs it with, so its
packages are resolved for Linux as well. Run on Linux. Pins that still fit stay; `--upgrade` drops them all.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path("requirements.lock")
PROJECT = ".[dev,textworld,ray,dask]"
BUILD = ["pip", "hatchling", "editables"]
CUDA_PYTHON = "3.12"
HEADER = """\
# Every version that a set-up may install, here or on another platform; pip reads it as constraints.
# `make lock` writes it: pins that still fit stay, ARGS=--upgrade resolves anew within pyproject.toml's bounds.
"""


def main(data_packages: list[str], *, upgrade: bool) -> None:
    """Resolve for this machine, then for Linux with CUDA, and write the union."""
    if platform.system() != "Linux":
        sys.exit("error: CUDA's packages can only be resolved on Linux: run `make lock` there")
    kept = LOCK.read_text() if not upgrade else ""
    with tempfile.TemporaryDirectory() as folder:
        bounds = Path(folder, "bounds.txt")
        bounds.write_text(kept)
        pins = resolve(data_packages, bounds, "--no-deps") | resolve([PROJECT, *BUILD], bounds)
        bounds.write_text(as_lines(pins))
        torch = resolve(["torch"], bounds, *linux_with_cuda(), "--target", folder)
    LOCK.write_text(HEADER + as_lines(torch | pins))


def resolve(packages: list[str], bounds: Path, *options: str) -> dict[str, str]:
    """Name → version of what pip would install for `packages` in an empty environment."""
    report = bounds.with_name("report.json")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    subprocess.run([*pip, "-c", str(bounds), "--report", str(report), *options, *packages], check=True)
    found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    pins = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"].split("+")[0] for one in found}
    pins.pop("ratchet-loop", None)
    return pins


def linux_with_cuda() -> list[str]:
    """Options that make pip resolve for Linux with a CUDA build of torch, wherever it runs."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 35)] + ["manylinux2014_x86_64"]
    options = ["--only-binary=:all:", "--python-version", CUDA_PYTHON]
    return options + [word for tag in tags for word in ("--platform", tag)]


def as_lines(pins: dict[str, str]) -> str:
    """The lock's text: a pin a line, sorted."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


if __name__ == "__main__":
    words = sys.argv[1:]
    main([word for word in words if word != "--upgrade"], upgrade="--upgrade" in words)
