"""Kafka's jars: fetched once, whole, and exactly those that the lock file names."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import sys
import threading
from functools import partial

import pytest

from bridge.errors import ContractError, KafkaUnavailable
from bridge.local.jars import Jar, fetch, lock_text, parse_lock

CONTENT = b"a jar, as far as anybody looks" * 1000
JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())
OTHER = Jar("org.example", "other", "2.0", JAR.sha256)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A Maven repository on loopback that the user's settings name as the mirror of all others."""
    served = tmp_path / "served"
    for jar in (JAR, OTHER):
        (served / jar.path).parent.mkdir(parents=True)
        (served / jar.path).write_bytes(CONTENT)
    settings = tmp_path / "home" / ".m2" / "settings.xml"
    settings.parent.mkdir(parents=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=served)) as server:
        settings.write_text(
            '<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0"><mirrors><mirror><id>near</id>'
            f"<mirrorOf>*</mirrorOf><url>http://127.0.0.1:{server.server_port}/</url></mirror></mirrors></settings>"
        )
        monkeypatch.setenv("HOME", str(settings.parents[1]))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield served
        server.shutdown()


def test_lock_file_names_kafka_and_no_address():
    """The committed lock has a checksum for every jar, Kafka among them, and spells no address."""
    jars = parse_lock(lock_text())
    assert "kafka_2.13" in {jar.artifact for jar in jars}
    assert len({jar.path for jar in jars}) == len(jars)
    assert "//" not in lock_text()


@pytest.mark.parametrize("line", ["org.example:thing:1.0", f"{JAR}0", "thing sha256:" + "0" * 64, f" {JAR}"])
def test_lock_without_a_checksum_is_refused(line):
    """A line that does not pin a jar to a checksum is an error that names the line."""
    with pytest.raises(ContractError, match="line 2"):
        parse_lock(f"# comment\n{line}\n")


def test_fetches_once(repository, tmp_path):
    """What is in the cache is not asked for again."""
    paths = fetch([JAR, OTHER], tmp_path)
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]
    (repository / JAR.path).unlink()
    assert fetch([JAR, OTHER], tmp_path) == paths


def test_torn_jar_is_healed(repository, tmp_path):
    """A jar cut off in the cache is fetched again."""
    (path,) = fetch([JAR], tmp_path)
    path.write_bytes(CONTENT[:100])
    assert fetch([JAR], tmp_path) == (path,)
    assert path.read_bytes() == CONTENT


def test_wrong_checksum_is_refused(repository, tmp_path):
    """A jar that is not what the lock names never reaches the cache."""
    (repository / JAR.path).write_bytes(b"something else")
    with pytest.raises(KafkaUnavailable, match=r"org\.example:thing:1\.0.*refused"):
        fetch([JAR], tmp_path)
    assert not (tmp_path / "maven" / JAR.path).exists()


def test_absent_jar_is_named(repository, tmp_path):
    """Where the repository lacks a jar, the error names it."""
    (repository / JAR.path).unlink()
    with pytest.raises(KafkaUnavailable, match=r"org\.example:thing:1\.0"):
        fetch([JAR], tmp_path)


def test_processes_share_an_empty_cache(repository, tmp_path):
    """Several processes that find an empty cache all end with whole jars, and leave nothing beside them."""
    program = "import sys; from bridge.local.jars import *; fetch(parse_lock(sys.argv[1]), Path(sys.argv[2]))"
    command = [sys.executable, "-c", program, f"{JAR}\n{OTHER}", str(tmp_path)]
    (tmp_path / "maven" / ".fetching-abandoned").mkdir(parents=True)
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(180) for process in running] == [0, 0, 0]
    found = {p.relative_to(tmp_path / "maven") for p in (tmp_path / "maven").rglob("*") if p.is_file()}
    assert found == {JAR.path, OTHER.path}
    assert not (tmp_path / "maven" / ".fetching-abandoned").exists()
