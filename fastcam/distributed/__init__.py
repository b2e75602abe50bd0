"""Evaluation in shards: in one process, on Ray, or under torchrun, with the same numbers, and resumed where it ended.

A shard is a fixed run of samples in the data set's order. Its result, rows and sums, is one file: there as a whole or
not at all. Shards never depend on how many workers compute them, and their sums are added in their own order.
"""

from __future__ import annotations

from fastcam.distributed.files import check_folder, whole, write_whole
from fastcam.distributed.gathered import Gathered, gather
from fastcam.distributed.identity import digest, machine
from fastcam.distributed.shards import Found, Plan, Result, Store
from fastcam.distributed.work import Job, Recipe, Worker

__all__ = [
    "Found",
    "Gathered",
    "Job",
    "Plan",
    "Recipe",
    "Result",
    "Store",
    "Worker",
    "check_folder",
    "digest",
    "gather",
    "machine",
    "whole",
    "write_whole",
]
