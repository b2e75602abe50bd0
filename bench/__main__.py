"""`python -m bench [ops|methods|peers|report] [--quick] [--save NAME] [--json FILE]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SUITES = ("ops", "methods", "peers")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Speed and memory beside floors and peers.")
    parser.add_argument("what", nargs="?", choices=(*SUITES, "report"), help="default: all three suites")
    parser.add_argument("--quick", action="store_true", help="short list, few rounds: a minute on two idle cores")
    parser.add_argument("--only", default="", help="works whose id or text contains this (T1, scorecam, resnet50)")
    parser.add_argument("--threads", type=int, default=2, help="of torch and of fastcam's kernels (default 2)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="folder with a load_weights.py; else resnet50 is random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--save", metavar="NAME", help="write the rows to bench/results/NAME.csv")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # read once, when torch and the kernels are loaded
    from bench import report, rows, suites

    if given.what == "report":
        print(report.markdown(report.newest()))
        return 0
    suites.header(given)
    found: list[rows.Row] = []
    for name in [given.what] if given.what else SUITES:
        found += suites.run(name, given)
    if given.json:
        rows.write_json(given.json, found)
    if given.save:
        rows.write_csv(rows.RESULTS / f"{given.save}.csv", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
