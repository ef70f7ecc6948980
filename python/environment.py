"""The project's virtual environment: made, adopted or completed. Standard library only.

  environment.py install VENV {build,test} --stamp FILE [--torch-index URL]
      Leaves VENV with what python/requirements-{build,test}.txt pins, and then writes FILE. Makes
      VENV if there is none; one that already holds the pins is taken as it is, without pip. If the
      Python that runs this already imports the pinned torch (a CUDA build, say), VENV sees it.
  environment.py link VENV FOLDER
      Makes VENV's Python import what lies in FOLDER, if there is such a folder.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def read_pins(file):
    """{name: version} of a requirement file, in its order."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def installed_versions(python, names):
    """{name: version or None} as `python` sees them; "2.13.0+cpu" counts as "2.13.0"."""
    program = """
import importlib.metadata, json, sys
def version(name):
    try: return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
    found = subprocess.run([python, "-c", program, *names], check=True, capture_output=True)
    return json.loads(found.stdout)


def missing_pins(python, pins):
    found = installed_versions(python, pins)
    return {name: version for name, version in pins.items() if found[name] != version}


def make_environment(venv):
    """Creates `venv`; it sees the packages of this Python if the pinned torch is among them."""
    pinned = read_pins(HERE / "requirements-build.txt")["torch"]
    seen = installed_versions(sys.executable, ["torch"])["torch"] == pinned
    print(f"making {venv}" + (f" on top of this Python's torch {pinned}" if seen else ""), flush=True)
    options = ["--system-site-packages"] if seen else []
    subprocess.run([sys.executable, "-m", "venv", *options, str(venv)], check=True)
    # A Python that is itself in a virtual environment does not pass its packages on by that option.
    if seen and installed_versions(str(venv / "bin" / "python"), ["torch"])["torch"] != pinned:
        outer = pathlib.Path(importlib.util.find_spec("torch").origin).parents[1]
        for site in venv.glob("lib/python3*/site-packages"):
            (site / "outer.pth").write_text(f"{outer}\n")


def install(venv, which, stamp, torch_index):
    python = str(venv / "bin" / "python")
    if not (venv / "bin" / "python").exists():
        make_environment(venv)
    pins = read_pins(HERE / f"requirements-{which}.txt")
    missing = missing_pins(python, pins)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    pip += ["-c", str(HERE / "constraints.txt")]
    pip += ["--extra-index-url", torch_index] if torch_index else []
    # torch by itself and first: packages that depend on it then find it.
    for batch in (["torch"], [name for name in pins if name != "torch"]):
        wanted = [f"{name}=={missing[name]}" for name in batch if name in missing]
        if wanted:
            print("pip install", *wanted, flush=True)
            subprocess.run([*pip, *wanted], check=True)
    still = missing_pins(python, pins)
    if still:
        sys.exit(f"[environment] {venv} still lacks {still}; remove the folder and run again")
    for old in stamp.parent.glob(f".attar-{which}-*"):
        old.unlink()
    stamp.touch()


def link(venv, folder):
    if not folder.is_dir():
        return
    for site in venv.glob("lib/python3*/site-packages"):
        (site / "attar.pth").write_text(f"{folder.resolve()}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("install")
    one.add_argument("venv", type=pathlib.Path)
    one.add_argument("which", choices=["build", "test"])
    one.add_argument("--stamp", type=pathlib.Path, required=True)
    one.add_argument("--torch-index", default="")
    two = commands.add_parser("link")
    two.add_argument("venv", type=pathlib.Path)
    two.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "install":
            install(arguments.venv, arguments.which, arguments.stamp, arguments.torch_index)
        else:
            link(arguments.venv, arguments.folder)
    except subprocess.CalledProcessError as error:
        sys.stderr.write((error.stderr or b"").decode(errors="replace"))
        sys.exit(f"[environment] '{' '.join(error.cmd[:4])} ...' ended with {error.returncode}")


if __name__ == "__main__":
    main()
