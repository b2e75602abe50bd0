"""Chunks on a GPU's two streams, played by hand where there is none: what is written, read and waited for, in order."""

from __future__ import annotations

import contextlib
import gc
import resource
from pathlib import Path

import pytest
import torch

from fastcam import CAM
from fastcam.scoring import ON_DEVICE, Chunks, score_rows
from fastcam.streams import Graphs, Writer
from tests.small import images, network


class Stream:
    """Runs nothing by itself: keeps what it is given, and what of other streams that must be done before."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append((self.name, "waits for", other.name))

    def wait_event(self, event):
        self.log.append((self.name, "waits for", event))

    def record_event(self):
        event = f"read {sum(entry[1] == 'read' for entry in self.log)}"
        self.log.append((self.name, "records", event))
        return event


@pytest.fixture
def log(monkeypatch):
    """A log of two streams; tensors stay on the CPU."""
    log: list = []
    main = Stream(log, "main")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(log, "side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(("host", "waits for", "all")))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **{**k, "device": "cpu"}))
    return log


def played(log, rows, **given):
    writer = Writer((2,), torch.float32, torch.device("cuda"))
    buffers = {}

    def fill(start, stop, out):
        log.append(("side", "writes", buffers.setdefault(out.data_ptr(), len(buffers))))
        out[:] = torch.arange(start, stop)[:, None]

    def run(out, start, stop):
        log.append(("main", "read", buffers[out.data_ptr()]))
        return out.clone()

    chunks = Chunks(rows, 1, "key", given.pop("known", {}), device=torch.device("cuda"), **given)
    scores = score_rows(chunks, writer, fill, run, lambda out, *_: out[:, :1])
    assert torch.equal(scores, torch.arange(float(rows))[None])


def test_a_buffer_is_written_again_only_when_read(log):
    played(log, 20, batch_size=4)
    writes = [i for i, entry in enumerate(log) if entry[1] == "writes"]
    assert [log[i][2] for i in writes] == [0, 1, 0, 1, 0]
    for turn, i in enumerate(writes):
        # New memory waits for all that came before it; the same memory for the run that read it last.
        assert log[i - 1] == ("side", "waits for", "main" if turn < 2 else f"read {turn - 1}")
        assert log[i + 1] == ("main", "waits for", "side")
        assert log[i + 2] == ("main", "read", turn % 2)
        assert log[i + 3] == ("main", "records", f"read {turn + 1}")
    assert ("host", "waits for", "all") not in log


def test_a_gpu_is_waited_for_only_while_sizes_are_compared(log):
    known: dict = {}
    played(log, 5000, known=known, max_memory=64)
    assert log.count(("host", "waits for", "all")) >= 2 * 3
    (tuning,) = known.values()
    assert set(tuning.best) <= {n for n in ON_DEVICE if n <= 64}
    log.clear()
    played(log, 500, known=known, max_memory=64)
    assert ("host", "waits for", "all") not in log


def test_a_graph_is_recorded_once_a_shape(monkeypatch):
    recorded, replayed = [], []

    class Graph:
        def replay(self):
            replayed.append(self)
            self.work()

        def pool(self):
            return "pool"

    class Recording:
        def __init__(self, graph, pool=None):
            recorded.append((graph, pool))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            graph = recorded[-1][0]
            given, out = seen[-1]
            graph.work = lambda: out.copy_(given.sum(1))

    seen: list = []

    def run(rows):
        seen.append((rows, rows.sum(1)))
        return seen[-1][1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    graphs = Graphs(run)
    for count in (4, 4, 4, 3, 4, 3, 3, 4):
        rows = torch.rand(count, 2)
        assert torch.equal(graphs(rows), rows.sum(1))
    assert [pool for _, pool in recorded] == [None, "pool"]
    assert len(seen) == 2 * 3  # two to warm up and one to record, of each shape
    assert len(replayed) == 8 - 4


def test_graphs_need_a_gpu_and_images_alone():
    with pytest.raises(ValueError, match="the images are on cpu"):
        CAM(network(), "scorecam", compile="graphs")(images(1))
    with pytest.raises(ValueError, match="'graphs', got 'fast'"):
        CAM(network(), "scorecam", compile="fast")


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "sscam", "ablationcam"])
def test_memory_stays_flat_over_200_explanations(method, one_thread):
    options = {"samples": 2} if method == "sscam" else {}
    net, x = network(), images(1, (64, 64))
    layer = "0.1" if method == "ablationcam" else None

    def explain(times):
        for _ in range(times):
            CAM(net, method, layer, **options)(x)
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    tensors, before = explain(100), resident()
    assert explain(200) <= tensors
    # One chunk of rows left behind a call would be 40 MB; malloc's own ups and downs were up to 15 MB.
    assert resident() - before < 20 << 20


def resident():
    """Memory of this process in bytes, where the system tells."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0
