"""The files of the spool, without a broker: what was written and not done is there after any crash."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError
from bridge.kafka.outbox import BatchFormat, Identity, Record
from bridge.kafka.spool import Spool, SpoolDamaged, Stamp, Write, read

PLACES = [TopicPartition("trades", 0), TopicPartition("trades", 1), TopicPartition("bücher", 0)]
LIMIT = 10**9


def batch(number, size=100):
    """Return the bytes of a record batch that tells its number."""
    record = Record(number, b"key", b"%d" % number + os.urandom(size), ())
    return BatchFormat(10_000, "none").seal([record], 0.0).data


def put(spool, place, size=100):
    """Write one batch of a partition; return its number and bytes."""
    number = spool.take_number(place)
    data = batch(number, size)
    writes = [Write(place, number, 1, len(data), data)]
    spool.commit(writes, spool.write(writes, spool.retire()))
    return number, bytes(data)


def found(spool):
    """Return what a spool that was just opened holds: per partition the numbers and bytes, in order."""
    everything = {}
    for place, kept in spool.take_pending().items():
        for one in kept:
            data = read(spool.directory, spool.locate(place))
            assert len(data) == one.size
            everything.setdefault(place, []).append((one.number, bytes(data)))
            spool.note(place, Stamp(one.number + 1))
    return everything


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(PLACES), st.integers(1, 400)),
        st.tuples(st.just("done"), st.sampled_from(PLACES), st.integers(1, 3)),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.data())
def test_a_crash_anywhere_leaves_what_is_not_done(taken, data):
    """After any sequence of writing, doing and opening anew, and a crash at any byte, what is not done is there."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "spool"
        spool = Spool(home, LIMIT, segment_bytes=1000)
        model = {place: [] for place in PLACES}
        for verb, place, amount in taken:
            if verb == "put":
                model[place].append(put(spool, place, amount))
            elif verb == "done" and model[place]:
                gone = model[place][:amount]
                del model[place][:amount]
                spool.note(place, Stamp(gone[-1][0] + 1, 0, 0, 7, 0, gone[-1][0]))
            elif verb == "reopen":
                spool.close()
                spool = Spool(home, LIMIT, segment_bytes=1000)
                spool.take_pending()
        crashed = Path(directory) / "crashed"
        shutil.copytree(home, crashed)
        spool.close()
        lost = set()
        segments = sorted(crashed.glob("*.segment"))
        if segments:
            last = segments[-1]
            whole = last.read_bytes()
            size = data.draw(st.integers(0, len(whole)), label="bytes left")
            last.write_bytes(whole[:size])
            lost = {
                entry
                for left in model.values()
                for entry in left
                if (at := whole.find(entry[1])) >= 0 and at + len(entry[1]) > size
            }
        again = Spool(crashed, LIMIT)
        assert found(again) == {
            place: left
            for place, entries in model.items()
            if (left := [entry for entry in entries if entry not in lost])
        }
        again.close()


def test_what_is_done_is_deleted(tmp_path):
    """Segments go once all of theirs is done, also those in the middle, and a spool with nothing left has none."""
    spool = Spool(tmp_path, LIMIT, segment_bytes=500)
    numbers = {place: [put(spool, place, 300)[0] for _ in range(10)] for place in PLACES[:2]}
    full = spool.used_bytes
    spool.note(PLACES[1], Stamp(numbers[PLACES[1]][-1] + 1))
    spool.write([], spool.retire())
    assert spool.used_bytes < 0.65 * full
    assert sum(path.stat().st_size for path in tmp_path.glob("*.segment")) == spool.used_bytes
    spool.note(PLACES[0], Stamp(numbers[PLACES[0]][-1] + 1))
    spool.write([], spool.retire())
    assert (spool.used_bytes, list(tmp_path.glob("*.segment"))) == (0, [])
    assert put(spool, PLACES[0])[0] == 10
    spool.close()
    again = Spool(tmp_path, LIMIT)
    assert [number for number, _ in found(again)[PLACES[0]]] == [10]
    again.close()
    assert list(tmp_path.glob("*.segment")) == []


def test_a_stamp_outlives_the_process(tmp_path):
    """The newest stamp of each partition is there again; of one that was torn, the one before it."""
    spool = Spool(tmp_path, LIMIT)
    for sequence in range(3):
        for place in PLACES:
            spool.note(place, Stamp(sequence, 1, 2, 4711, 3, sequence))
    spool.close()
    heads = bytearray((tmp_path / "heads").read_bytes())
    heads[512 + 448 + 20] ^= 1  # the third of the second partition
    (tmp_path / "heads").write_bytes(heads)
    again = Spool(tmp_path, LIMIT)
    assert [again.stamp(place).sequence for place in PLACES] == [2, 1, 2]
    assert again.stamp(PLACES[2]) == Stamp(2, 1, 2, 4711, 3, 2)
    again.close()


def test_a_batch_may_be_stamped_while_it_is_written(tmp_path):
    """Producer, epoch and sequence may change in memory at any time: what is read back is whole all the same."""
    spool = Spool(tmp_path, LIMIT)
    sealed = BatchFormat(10_000, "zstd").seal([Record(1, b"k", b"v", ())], 0.0)
    number = spool.take_number(PLACES[0])
    writes = [Write(PLACES[0], number, 1, 10, sealed.data)]
    locations = spool.write(writes)
    path = next(tmp_path.glob("*.segment"))
    before = bytes(sealed.data)
    sealed.stamp(Identity(4711, 3), 99)
    path.write_bytes(path.read_bytes().replace(before, bytes(sealed.data)))
    spool.commit(writes, locations)
    assert read(tmp_path, spool.locate(PLACES[0])) == sealed.data
    spool.close()


@pytest.mark.parametrize("offset", [3, 30, -1])
def test_damage_is_noticed(tmp_path, offset):
    """A flipped bit in header or batch is never handed out as what was written."""
    spool = Spool(tmp_path, LIMIT)
    put(spool, PLACES[0])
    location = spool.locate(PLACES[0])
    path = next(tmp_path.glob("*.segment"))
    content = bytearray(path.read_bytes())
    content[location.offset + offset if offset >= 0 else -1] ^= 4
    path.write_bytes(content)
    with pytest.raises(SpoolDamaged, match="segment 1 is damaged at byte 8"):
        read(tmp_path, location)
    spool.close()


def test_a_full_disk_leaves_the_log_whole(tmp_path):
    """A write that the disk refuses half way counts as none; the next ones go on, and all is read back."""
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.kafka.test_spool import LIMIT, PLACES, Spool, Write, batch, put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path({str(tmp_path)!r}), LIMIT)
put(spool, PLACES[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
number = spool.take_number(PLACES[0])
writes = [Write(PLACES[0], number, 1, 1, batch(number, 2000))]
try:
    spool.write(writes)
except OSError as error:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.commit(writes, spool.write(writes))
put(spool, PLACES[1])
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    again = Spool(tmp_path, LIMIT)
    assert {place: [number for number, _ in entries] for place, entries in found(again).items()} == {
        PLACES[0]: [0, 1],
        PLACES[1]: [0],
    }
    again.close()


def test_one_process_a_directory(tmp_path):
    """A second user of the directory is told who has it; once that one is gone the directory is free."""
    spool = Spool(tmp_path, LIMIT)
    with pytest.raises(ConfigError, match=rf"spool\.directory: {tmp_path} .*pid {os.getpid()}\)"):
        Spool(tmp_path, LIMIT)
    spool.close()
    Spool(tmp_path, LIMIT).close()


def test_a_directory_that_cannot_be_used(tmp_path):
    """A path that is no directory is a configuration error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"spool\.directory: {tmp_path}/file cannot be used"):
        Spool(tmp_path / "file", LIMIT)


def test_files_of_another_version(tmp_path):
    """A segment in another form is refused, and left alone."""
    (tmp_path / "000000000001.segment").write_bytes(b"bkspool9 and more")
    with pytest.raises(ConfigError, match="was not written by this version"):
        Spool(tmp_path, LIMIT)
    assert (tmp_path / "000000000001.segment").read_bytes() == b"bkspool9 and more"
