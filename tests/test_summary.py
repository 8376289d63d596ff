"""The summary of a sweep against hand-worked means, and the measure of memory against allocations of known size."""

import mmap

import torch

from harness.peak import PeakMemory
from harness.summary import summary_table


def record(method, task, seed, score, share=1.0, seconds=10.0, memory=100):
    job = {"method": method, "tasks": task, "seed": str(seed)}
    return {"job": job, "score": score, "share": share, "seconds": seconds, "memory": memory}


def cells(text):
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_means_over_seeds_by_task():
    records = [
        record("a", "rte", 0, 60.0, 0.5, 10.0, 100),
        record("a", "rte", 1, 64.0, 0.5, 20.0, 300),
        record("a", "cola", 0, 10.0, 0.5, 30.0, 200),
        record("b", "cola", 0, 20.0, 100.0, 5.0, None),
        record("b", "cola", 1, 20.0, 100.0, 6.0, None),
        {"job": {"method": "b", "tasks": "rte", "seed": "0"}, "state": "failed", "score": None},
    ]
    head, _, first, second = cells(summary_table(records))
    assert head == ["method", "rte", "cola", "trained %", "seconds", "MiB"]
    # sqrt(((60 - 62)^2 + (64 - 62)^2) / 1) = 2.8
    assert first == ["a", "62.0 ± 2.8", "10.0 (1)", "0.5", "22", "200"]  # (15 + 30) / 2
    assert second == ["b", "20.0 ± 0.0", "100", "6"]
    assert summary_table(records[-1:]) == ""


def test_peak_memory_begins_anew():
    device = torch.device("cpu")

    def touch(mib):
        with mmap.mmap(-1, mib << 20) as block:
            block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)

    before = PeakMemory(device)
    touch(300)
    first = before.mib
    anew = PeakMemory(device)
    floor = anew.mib
    assert floor <= first - 290
    touch(200)
    assert 190 <= anew.mib - floor <= 230
