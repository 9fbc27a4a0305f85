"""Run what the chart's pods would run, as far as no cluster is needed for it.

``helm template … | python try_commands.py COMMAND...`` reads rendered objects and, with ``COMMAND`` in place
of the image's entrypoint,

* runs the init container ``config-check`` with its own arguments, environment and files (each Secret's keys
  hold made-up text), so that the bridge itself judges the configuration exactly as it would in the pod;
* asks for ``--help`` of every container's command, and looks for the options that the chart passes.

Exit status 1 where any of it fails.
"""

# ruff: noqa: INP001 - a script, not a package

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the specification of every pod that the objects are or make."""
    for thing in objects:
        if thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"]
        elif thing["kind"] in {"StatefulSet", "Job"}:
            yield f"{thing['metadata']['name']}-0", thing["spec"]["template"]["spec"]


def files_of(volume: Object, objects: Sequence[Object]) -> dict[str, str]:
    """Return what a volume would hold: a ConfigMap's files, a Secret's with made-up text."""
    if "configMap" in volume:
        name = volume["configMap"]["name"]
        return next(o["data"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name)
    return {item["path"]: "made-up" for item in volume.get("secret", {}).get("items", ())}


def check_config(command: Sequence[str], pod: str, spec: Object, objects: Sequence[Object]) -> str | None:
    """Run the pod's init container under a scratch root; return what it said where it failed."""
    container = spec["initContainers"][0]
    volumes = {volume["name"]: files_of(volume, objects) for volume in spec["volumes"]}
    with tempfile.TemporaryDirectory() as root:
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for mount in container["volumeMounts"]:
            for name, text in volumes[mount["name"]].items():
                file = Path(root + mount["mountPath"], name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, "utf-8")

        def moved(text: str) -> str:
            return root + text if any(text.startswith(f"{mount}/") for mount in mounts) else text

        environ = {variable["name"]: moved(variable.get("value", pod)) for variable in container["env"]}
        ours = ("BRIDGE_", "BINANCE_")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        arguments = [moved(argument) for argument in container["args"]]
        status, said = run([*command, *arguments], inherited | environ)
    return f"config check of {pod} ended with {status}:\n{said}" if status else None


def check_usage(command: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Ask for the help of a container's command; say so where it lacks an option that is passed."""
    options = [argument for argument in arguments if argument.startswith("--")]
    subcommand = arguments[: arguments.index(options[0])] if options else arguments
    asked = [*command, *subcommand, "--help"]
    # Help is laid out for the width it finds; a narrow one would break option names apart.
    status, said = run(asked, os.environ | {"COLUMNS": "200"})
    if status:
        return f"{' '.join(asked)} ended with {status}:\n{said}"
    lacking = [option for option in options if option not in said]
    return f"{' '.join(asked)} does not know {', '.join(lacking)}" if lacking else None


def run(command: Sequence[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a command to its end; return its exit status and what it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)  # noqa: S603 - the caller's own
    return done.returncode, done.stdout + done.stderr


def main(command: Sequence[str]) -> int:
    """Judge the objects on standard input; return the exit status."""
    objects = [thing for thing in yaml.safe_load_all(sys.stdin) if thing]
    problems = []
    for pod, spec in pods(objects):
        if "initContainers" in spec:
            problems.append(check_config(command, pod, spec, objects))
        problems += [check_usage(command, container["args"]) for container in spec["containers"]]
    found = [problem for problem in problems if problem]
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    return 1 if found or not problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
