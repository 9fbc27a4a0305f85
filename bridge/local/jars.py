"""The jars of Apache Kafka: named and checksummed in ``kafka.lock``, fetched once into a cache.

The address of the repository stands nowhere here: it is the resolver's own default, or what the user's
``~/.m2/settings.xml`` (a mirror) or jgo's settings say.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from bridge.errors import ConfigError, ContractError, KafkaUnavailable
from bridge.local.files import cache_directory, locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jgo.maven import MavenContext

_THREADS = 8
_TIMEOUT_SECONDS = 60
_STAGING = ".fetching-"
_LINE = re.compile(
    r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) sha256:(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version} sha256:{self.sha256}"

    @property
    def path(self) -> Path:
        """Where the jar lies in a Maven repository."""
        folder = Path(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def lock_text() -> str:
    """Return the text of ``kafka.lock``."""
    return files("bridge.local").joinpath("kafka.lock").read_text(encoding="utf-8")


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Read a lock file.

    Raises:
        ContractError: a line is no ``group:artifact:version sha256:…``.
    """
    jars: list[Jar] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ContractError(
                f"kafka.lock, line {number}: expected 'group:artifact:version sha256:…', got {line!r}"
            )
        jars.append(Jar(**found.groupdict()))
    return tuple(jars)


def fetch(jars: Sequence[Jar], cache: Path | None = None) -> tuple[Path, ...]:
    """Return the paths of ``jars``, downloading those that are missing or damaged. Safe among processes.

    Args:
        jars: what to have.
        cache: where to keep them, by default :func:`~bridge.local.files.cache_directory`.

    Raises:
        KafkaUnavailable: a jar can't be had, or what the repository serves is not what the lock names.
        ConfigError: the extra ``local`` is not installed.
    """
    repository = (cache or cache_directory()) / "maven"
    repository.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="jars") as pool:
        if not _all_intact(jars, repository, pool):
            with locked(repository.with_suffix(".lock")):
                for abandoned in repository.glob(f"{_STAGING}*"):  # by a process that was killed
                    shutil.rmtree(abandoned, ignore_errors=True)
                # Consumed inside the lock; the first failure is raised.
                tuple(pool.map(lambda jar: _ensure(jar, repository), jars))
    return tuple(repository / jar.path for jar in jars)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def context(repo_cache: Path) -> MavenContext:
    """Return the resolver's context: its default repositories, the user's own ones and the user's mirrors.

    Raises:
        ConfigError: jgo is not installed.
    """
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise ConfigError("a local Kafka needs jgo; pip install 'binance-kafka-bridge[local]'") from error
    made = MavenContext(repo_cache=repo_cache, timeout=_TIMEOUT_SECONDS)
    made.remote_repos.update(GlobalSettings.load().repositories)
    made.remote_repos.update({name: url for name in made.remote_repos if (url := _mirror(name)) is not None})
    return made


def _all_intact(jars: Iterable[Jar], repository: Path, pool: ThreadPoolExecutor) -> bool:
    return all(pool.map(lambda jar: _intact(jar, repository / jar.path), jars))


def _intact(jar: Jar, path: Path) -> bool:
    return path.is_file() and sha256(path) == jar.sha256


def _ensure(jar: Jar, repository: Path) -> None:
    """Download one jar beside the cache, verify it, move it in: readers see it whole or not at all."""
    final = repository / jar.path
    if _intact(jar, final):
        return
    failure = ""
    for _ in range(2):  # a transfer may be cut off once
        with tempfile.TemporaryDirectory(dir=repository, prefix=_STAGING) as staging:
            maven = context(Path(staging))
            artifact = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact()
            try:
                maven.resolver.download(artifact)
            except (
                OSError,
                RuntimeError,
            ) as error:  # requests' errors are OSErrors, "not found" is the other
                failure = str(error)
                continue
            downloaded = Path(staging) / jar.path
            served = sha256(downloaded)
            if served == jar.sha256:
                final.parent.mkdir(parents=True, exist_ok=True)
                downloaded.replace(final)
                return
            failure = f"the repository serves sha256:{served}; refused"
    raise KafkaUnavailable(f"{jar}: {failure}. Kafka's jars come from a Maven repository; is one reachable?")


def _mirror(repository: str) -> str | None:
    """Return the mirror that the user's Maven settings name for ``repository``."""
    settings = Path.home() / ".m2" / "settings.xml"
    if not settings.is_file():
        return None
    for mirror in ET.parse(settings).iterfind(".//{*}mirror"):  # noqa: S314 - the user's own file
        covered = (mirror.findtext("{*}mirrorOf") or "").replace(" ", "").split(",")
        url = mirror.findtext("{*}url")
        if url and f"!{repository}" not in covered and {repository, "*", "external:*"} & set(covered):
            return url.strip().rstrip("/")
    return None
