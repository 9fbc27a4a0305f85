"""Python environments of peers and of the report, made below ``build/benchmarks`` when they are first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build/benchmarks"

PEERS = {
    "cryptofeed": ("python3.13", ("cryptofeed==3.0.1", "aiokafka==0.14.0", "uvloop==0.22.1")),
    "ccxt": ("python3", ("ccxt==4.5.90", "aiokafka==0.14.0", "uvloop==0.22.1", "orjson==3.13.0")),
    "plots": ("python3", ("matplotlib>=3.10,<4",)),
}
"""Name, interpreter and pinned requirements."""


def environment(name: str) -> Path:
    """Return the interpreter of an environment."""
    interpreter, requirements = PEERS[name]
    directory = BUILD / "environments" / name
    python = directory / "bin/python"
    stamp = directory / hashlib.sha256(repr((interpreter, requirements)).encode()).hexdigest()[:16]
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([_found(interpreter), "-m", "venv", str(directory)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--prefer-binary", *requirements], check=True)
        stamp.touch()
    return python


def _found(interpreter: str) -> str:
    """Return an interpreter that runs: pyenv's shims may name one that is not switched on."""
    found = shutil.which(interpreter)
    if (
        found is not None
        and subprocess.run([found, "--version"], check=False, capture_output=True).returncode == 0
    ):
        return found
    version = interpreter.removeprefix("python")
    for candidate in sorted(
        Path("~/.pyenv/versions").expanduser().glob(f"{version}*/bin/python"), reverse=True
    ):
        return str(candidate)
    raise FileNotFoundError(f"{interpreter} is not installed")
