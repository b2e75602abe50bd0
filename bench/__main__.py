"""`python -m bench [SUITE|budget|survey|compat|reproduce|report] [--quick] [--save NAME]`, see `--help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SUITES = ("ops", "methods", "peers", "engines", "metrics")
TABLES = ("peers", "engines", "metrics", "budget", "survey", "methods", "compat")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Speed and memory beside floors and peers.")
    parser.add_argument(
        "what",
        nargs="?",
        choices=(*SUITES, "budget", "survey", "compat", "reproduce", "report"),
        help="default: five suites",
    )
    parser.add_argument("table", nargs="?", choices=TABLES, help="which one `report` makes (default peers)")
    parser.add_argument("--quick", action="store_true", help="short list, few rounds: minutes on two idle cores")
    parser.add_argument(
        "--only",
        default="",
        help="works whose id or text contains this (T1, scorecam, resnet50; budget, survey: quality, time)",
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch and of fastcam's kernels (default 2)")
    parser.add_argument("--malloc", choices=("kept", "stock"), default="kept", help="keep freed memory (default)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="folder with a load_weights.py; else resnet50 is random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--save", metavar="NAME", help="write the rows to bench/results/NAME.csv")
    parser.add_argument("--data", type=Path, help="a data set with labels, for metrics, budget, survey and reproduce")
    parser.add_argument("--models", default="", help="for reproduce and survey: names, commas between them")
    parser.add_argument("--limit", type=int, help="for reproduce, survey and budget: pictures at most")
    parser.add_argument(
        "--curve-limit", type=int, help="for reproduce and survey: pictures for insertion and deletion at most"
    )
    parser.add_argument("--curve-steps", type=int, help="for reproduce: of insertion and deletion (default: rows)")
    parser.add_argument(
        "--runtime", default="torch", help="of masked forwards, for reproduce, survey and for the quality of budget"
    )
    parser.add_argument("--score-limit", type=int, help="for reproduce: pictures for Score-CAM at most")
    parser.add_argument("--suite", type=Path, help="for compat: a checkout of a peer, whose own tests run on fastcam")
    parser.add_argument("--readme", type=Path, help="for compat: a peer's README.md, whose Python runs on fastcam")
    parser.add_argument(
        "--random-weights", action="store_true", help="for --suite: where torchvision's weights cannot be had"
    )
    given = parser.parse_args()
    if given.table and given.what != "report":
        parser.error(f"{given.what} {given.table}: a table is named for report only")
    if (given.suite or given.readme) and given.what != "compat":
        parser.error("--suite and --readme are for compat")
    if given.what == "reproduce" and given.data is None:
        parser.error("reproduce needs --data: a folder with annotations.json, or one folder a class")
    return given


def main() -> int:
    given = arguments()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # read once, when torch and the kernels are loaded
    from bench import (
        machine,
        report,
        report_budget,
        report_compat,
        report_methods,
        report_metrics,
        report_survey,
        rows,
        suites,
    )

    if given.malloc == "kept":
        machine.keep_memory()
    if given.what == "report":
        table = given.table or "peers"
        own = {
            "budget": report_budget,
            "compat": report_compat,
            "methods": report_methods,
            "metrics": report_metrics,
            "survey": report_survey,
        }
        made = own.get(table, report).markdown
        print(made(report.newest(suite=table)))
        return 0
    suites.header(given)
    if given.suite or given.readme:
        from bench import compat_front

        return compat_front.run(given)
    if given.what == "survey" and given.data is not None:
        from bench import survey_quality

        survey_quality.run(given)
        return 0
    if given.what == "reproduce":
        from bench import reproduce

        reproduce.run(given)
        return 0
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
