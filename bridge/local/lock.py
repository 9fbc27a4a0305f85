"""``python -m bridge.local.lock [VERSION]`` writes ``kafka.lock`` again, for another version of Apache Kafka.

For maintainers: walks Kafka's dependencies, downloads each and notes its SHA-256 (half a minute). Run
``make test test-faults test-outages`` afterwards and commit the file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bridge.local.jars import Jar, context, lock_text, parse_lock, sha256

_HEAD = """\
# Apache Kafka and what it needs to run. Written by `python -m bridge.local.lock`; do not edit.
"""
_NAME = "kafka_2.13"


def locked_version() -> str:
    """Return the version of Kafka in the present lock file."""
    return next(jar.version for jar in parse_lock(lock_text()) if jar.artifact == _NAME)


def resolve(version: str) -> list[Jar]:
    """Return all jars that Kafka ``version`` needs, with the logger it leaves to its user to choose."""
    with tempfile.TemporaryDirectory() as downloads:
        maven = context(Path(downloads))
        kafka = maven.create_dependency(f"org.apache.kafka:{_NAME}:{version}")
        found = [node for part in maven.resolver.resolve([kafka]) for node in part if node.scope != "test"]
        api = next(node.version for node in found if node.artifactId == "slf4j-api")
        found.append(maven.create_dependency(f"org.slf4j:slf4j-simple:{api}"))
        return sorted(
            (Jar(n.groupId, n.artifactId, n.version, sha256(Path(n.artifact.resolve()))) for n in found),
            key=str,
        )


def main(version: str) -> None:
    """Write the lock file for Kafka ``version``."""
    jars = resolve(version)
    Path(__file__).with_name("kafka.lock").write_text(
        _HEAD + "".join(f"{jar}\n" for jar in jars), encoding="utf-8"
    )
    print(f"kafka.lock: Kafka {version}, {len(jars)} jars")  # noqa: T201 - a command's output


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else locked_version())
