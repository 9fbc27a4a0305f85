"""Tries an installed wheel: the command answers, and it carries the contracts of this checkout byte for byte.

Run by the Python of an environment that has the wheel: ``make wheel``.
"""

import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CONTRACTS = ("avro", "topics")


def contents(folder: Path) -> dict[str, bytes]:
    """Return each file below ``folder`` by its path there."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def main() -> None:
    """Say what is wrong, or nothing."""
    installed = Path(str(files("bridge")))
    if installed.is_relative_to(CHECKOUT / "bridge"):
        sys.exit(f"bridge is imported from the checkout, not from the wheel: {installed}")
    for folder in CONTRACTS:
        wheel, checkout = contents(installed / "_contracts" / folder), contents(CHECKOUT / folder)
        if not checkout or wheel != checkout:
            different = sorted(n for n in wheel.keys() | checkout.keys() if wheel.get(n) != checkout.get(n))
            sys.exit(f"{folder}/ of the wheel is not the checkout's: {different or 'both are empty'}")
    command = [str(Path(sys.executable).with_name("binance-bridge")), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=installed).stdout
    if version("binance-kafka-bridge") not in said:
        sys.exit(f"binance-bridge --version said {said!r}")
    print(f"wheel: {said.strip()}, {', '.join(f'{f}/' for f in CONTRACTS)} as in the checkout")


if __name__ == "__main__":
    main()
