"""Lay out the Kubernetes schemas of the package ``kubernetes-validate`` as kubeconform looks for them.

``python kubernetes_schemas.py FOLDER VERSION...`` writes ``FOLDER/v<VERSION>-standalone-strict/<kind>.json``.
The package's files name themselves and each other by absolute addresses, which kubeconform would fetch.
"""

# ruff: noqa: INP001 - a script, not a package

import json
import sys
from pathlib import Path

import kubernetes_validate

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def lay_out(version: str, folder: Path) -> None:
    """Write the strict schemas of one Kubernetes version into ``folder``."""
    target = folder / f"v{version}-standalone-strict"
    target.mkdir(parents=True, exist_ok=True)
    for source in (SCHEMAS / f"v{version}-local-strict").glob("*.json"):
        schema = json.loads(source.read_text("utf-8"))
        schema.pop("$id", None)
        text = json.dumps(schema).replace('"/api/_definitions.json#', '"_definitions.json#')
        (target / source.name).write_text(text, "utf-8")


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        lay_out(wanted, Path(sys.argv[1]))
