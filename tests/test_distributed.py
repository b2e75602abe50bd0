"""Shards: computed once, whole or not at all, and the same numbers however many workers there are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL")

from fastcam.distributed import Plan, Result, Store, check_folder, digest, files, local, on_ray, torchrun, write_whole
from fastcam.distributed.rows import interleave, join
from fastcam.distributed.work import Worker
from tests.small import network
from tests.stand_ins import Recipe, evaluate

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table, rows and summary of one process that is left in peace; one of the 21 pictures is damaged."""
    return evaluate(Recipe(tmp_path_factory.mktemp("expected"), broken=(6,)))


def same(columns, others):
    assert list(columns) == list(others)
    for name, column in columns.items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(column, others[name]), name
        else:
            assert column == others[name], name


def stand_in(recipe, *launcher, **settings):
    command = [sys.executable, *launcher, "-m", "tests.stand_ins", str(recipe.folder), json.dumps(settings)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_a_plan_has_every_sample_once_and_does_not_know_the_workers():
    for count, size in ((21, 4), (20, 4), (3, 16), (1, 1), (0, 4)):
        plan = Plan(range(100, 100 + count), size)
        found = [plan.shard(number) for number in range(len(plan))]
        assert [index for shard in found for index in shard] == list(range(100, 100 + count))
        assert all(len(shard) == size for shard in found[:-1])
        assert all(found)


def test_a_result_survives_the_file(tmp_path):
    columns = {"key": ["a", "ä"], "label": [None, 3], "score": torch.tensor([0.1, torch.nan]).double()}
    result = Result(7, 2, columns, {"sum": torch.tensor(1 / 3).double()}, [{"file": "x"}], {"seconds": 0.5})
    found = Result.unpack(result.pack())
    assert found.columns["label"] == [None, 3]
    torch.testing.assert_close(found.columns["score"], columns["score"], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.states["sum"], result.states["sum"])
    assert (found.shard, found.images, found.problems, found.cost) == (7, 2, [{"file": "x"}], {"seconds": 0.5})
    for bytes_ in (result.pack()[:-100], b"", b"not a result"):
        with pytest.raises(ValueError, match="not the result of a shard"):
            Result.unpack(bytes_)


def test_no_bit_can_be_flipped(tmp_path):
    """Every 97th bit of the file in turn; a whole file of another shard; settings that nobody can read."""
    store = Store(tmp_path / "shards", {"seed": 1})
    store.open()
    columns = {"key": ["a", "b"], "score": torch.arange(2).double()}
    for shard in (0, 1):
        store.write(Result(shard, 2, columns, {"sum": torch.tensor(0.5)}))
    plan, path = Plan(range(4), 2), store.path(1)
    whole = path.read_bytes()
    flips = range(0, 8 * len(whole), 97)
    assert len(flips) > 100
    for bit in flips:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"000001\.pt: not the result of a shard.*remove it and start again"):
            store.read(1)
    assert store.look(plan).damaged == [1] == store.missing(plan)
    path.write_bytes(store.path(0).read_bytes())
    with pytest.raises(ValueError, match=r"000001\.pt: the result of shard 0"):
        store.read(1)
    store.close()
    for content in (b"", b'{"seed": ', b"[1]", b"\xff\xfe"):
        (tmp_path / "shards" / "settings.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"settings\.json is damaged.*--overwrite, or another --out"):
            store.open()
    (tmp_path / "shards" / "settings.json").unlink()
    store.open()
    assert store.done() == []  # of settings that nobody knows any more
    store.close()


def test_what_there_is_to_do_again(tmp_path):
    store, problem = Store(tmp_path / "shards", {}), [{"file": "x", "reason": "y", "lost": "sample"}]
    store.open()
    for shard, stamp, problems in ((0, "a", problem), (1, "b", []), (2, "old", []), (3, "old", problem), (5, "f", [])):
        store.write(Result(shard, 2, {}, {}, problems, stamp=stamp))
    store.path(5).write_bytes(b"")
    found = store.look(Plan(range(14), 2, ("a", "b", "c", "d", "e", "f", "g")))
    assert (found.kept, found.failed, found.changed, found.damaged, found.new) == ([1], [0], [2, 3], [5], [4, 6])
    assert found.missing == [2, 3, 4, 5, 6, 0]
    store.close()


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_whole(path, b"first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*results\.json \(No space left on device\).*make room"):
        write_whole(path, b"second, longer")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("results.json", b"first")]


def test_a_folder_that_cannot_take_the_results(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        check_folder(tmp_path / "file", 0)
    with pytest.raises(ValueError, match="cannot be written"):
        check_folder(tmp_path / "file" / "below", 0)
    with pytest.raises(ValueError, match="make room"):
        check_folder(tmp_path / "new", 1 << 60)

    def full(*_):
        raise OSError(27, "File too large")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ValueError, match=r"new cannot be written \(File too large\)"):
            check_folder(tmp_path / "new", 0)
    check_folder(tmp_path / "new", 1000)
    assert list((tmp_path / "new").iterdir()) == []


def test_rows_are_joined_by_name():
    values = {"a": {"x": torch.tensor([1.0, 2.0]), "c": torch.ones(2, 3)}, "b": {"x": torch.tensor([3.0, 4.0])}}
    rows = interleave(values, {"key": ["p", "q"]})
    assert rows["key"] == ["p", "p", "q", "q"]
    assert rows["method"] == ["a", "b", "a", "b"]
    assert rows["x"].tolist() == [1, 3, 2, 4]
    assert rows["c"].isnan().all(1).tolist() == [False, True, False, True]
    both = join([{}, {"key": ["o"], "method": ["a"], "label": [5]}, rows])
    assert both["key"] == ["o", "p", "p", "q", "q"]
    assert both["label"] == [5, None, None, None, None]
    assert both["x"].isnan().tolist() == [True, False, False, False, False]
    assert both["c"].shape == (5, 3)
    assert join([]) == {}


def test_weights_have_a_digest():
    assert digest(network(seed=0)) == digest(network(seed=0)) != digest(network(seed=1))
    half = network(seed=0).bfloat16()
    assert digest(half) != digest(network(seed=0))


def test_results_of_other_settings_are_not_mixed(tmp_path):
    table, *_ = evaluate(Recipe(tmp_path, settings={"parts": {"layer": 1}}))
    (tmp_path / "shards" / "notes.txt").write_text("the user's own")
    other = Recipe(tmp_path, seed=1, settings={"parts": {"layer": 2}})
    with pytest.raises(ValueError, match=r"other settings \(seed 0 -> 1; parts layer 1 -> 2\).*--overwrite"):
        evaluate(other)
    assert evaluate(other, overwrite=True)[0] != table
    assert (tmp_path / "shards" / "notes.txt").exists()


def test_one_run_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    first, second = (Store(tmp_path / "shards", {}) for _ in range(2))
    first.open()
    with pytest.raises(ValueError, match="another run is writing"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_what_is_done_is_not_done_again(tmp_path, expected):
    """Stopped after each shard in turn, with what a killed write leaves.

    A damaged file is computed anew, and so is a shard with a picture that could not be read: last of all.
    """
    recipe = Recipe(tmp_path, broken=(6,), loaders=1)  # two would write the log in any order

    def one_shard(job, plan, shards, keep):
        local.compute(job, plan, shards[:1], keep)

    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            evaluate(recipe, one_shard)
        (tmp_path / "shards" / ".000005.pt.1.part").write_bytes(b"half")
    assert sorted(recipe.reads()) == list(range(20))
    third = tmp_path / "shards" / "000003.pt"
    third.write_bytes(third.read_bytes()[:-50])
    table, columns, gathered = evaluate(recipe)
    assert table == expected[0]
    same(columns, expected[1])
    assert Counter(recipe.reads()) == Counter([*range(21), *range(12, 16), *range(4, 8)])
    assert recipe.reads()[-4:] == [4, 5, 6, 7]
    assert gathered.problems == [{"file": "006.png", "reason": "006.png is damaged", "lost": "sample"}]
    assert (gathered.images, gathered.rows) == (20, 40)
    assert not list((tmp_path / "shards").glob(".*"))


def test_killed_and_started_again(tmp_path, expected):
    """SIGKILL in the middle of a shard; pictures of finished shards are never read again."""
    recipe = Recipe(tmp_path, broken=(6,), kills_at=13)
    killed = stand_in(recipe, images=21, broken=[6], kills_at=13)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = {int(path.stem) for path in (tmp_path / "shards").glob("*.pt")}
    assert done
    assert max(done) < 3
    before = recipe.reads()
    table, columns, _ = evaluate(recipe)
    assert table == expected[0]
    same(columns, expected[1])
    assert sorted(recipe.reads()[len(before) :]) == [i for i in range(21) if i // 4 not in done]


def test_strict_stops_at_the_first(tmp_path):
    with pytest.raises(ValueError, match=r"006\.png is damaged"):
        evaluate(Recipe(tmp_path, broken=(6, 13), strict=True))
    assert [path.name for path in sorted((tmp_path / "shards").glob("*.pt"))] == ["000000.pt"]


def test_another_job_is_refused(tmp_path):
    fingerprint = Recipe(tmp_path).build().fingerprint
    Worker(Recipe(tmp_path).build(), fingerprint)
    with pytest.raises(ValueError, match="another model, data set or version"):
        Worker(Recipe(tmp_path, seed=1).build(), fingerprint)


def test_four_processes_under_torchrun(tmp_path, expected):
    recipe = Recipe(tmp_path, broken=(6,))
    found = stand_in(recipe, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", broken=[6])
    assert found.returncode == 0, found.stderr
    tables = [json.loads((tmp_path / f"table{rank}.json").read_text()) for rank in range(4)]
    assert all(table == tables[0] for table in tables)
    for method, row in expected[0].items():
        assert tables[0][method] == pytest.approx(row, rel=1e-14)  # added up in another order
    assert sorted(recipe.reads()) == list(range(21))
    table, columns, _ = evaluate(recipe)  # reads what they left, and tries the damaged picture again
    assert table == expected[0]
    same(columns, expected[1])
    assert sorted(recipe.reads()) == sorted([*range(21), *range(4, 8)])


def test_a_process_whose_fellow_has_ended_ends_without_a_word(monkeypatch):
    def closed(*_):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torchrun.distributed, "barrier", closed)
    monkeypatch.setattr(torchrun.distributed, "broadcast_object_list", closed)
    monkeypatch.setattr(torchrun.distributed, "get_rank", lambda: 1)
    for call in (torchrun.wait, lambda: torchrun.agree(dict)):
        with pytest.raises(SystemExit, match="2"):
            call()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, of its own settings
def test_ray_goes_on_after_a_worker_is_killed(tmp_path, expected):
    pytest.importorskip("ray.data")
    recipe = Recipe(tmp_path, broken=(6,), kills_at=9)

    def two_actors(job, plan, shards, keep):
        on_ray.compute(recipe, job.fingerprint, plan, shards, keep, workers=2)

    table, columns, gathered = evaluate(recipe, two_actors)
    assert recipe.killed.exists()
    assert table == expected[0]
    same(columns, expected[1])
    assert len(gathered.problems) == 1
    assert set(recipe.reads()) == set(range(21))
