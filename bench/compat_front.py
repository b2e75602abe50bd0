"""`python -m bench compat --suite PATH | --readme PATH`: what a peer's own tests and README do on fastcam."""

from __future__ import annotations

import argparse
import json

from bench import compat_readme, compat_suite


def run(given: argparse.Namespace) -> int:
    """Prints the report of each, writes both as JSON where asked, and keeps a suite's counts with --save.

    Returns:
        1 where a test or a block of Python that the peer passes fails on fastcam without a known reason, else 0.
    """
    found, wrong = {}, False
    try:
        if given.suite:
            suite = compat_suite.run(given.suite, given.random_weights, given.only)
            print(suite.text())
            if given.save:
                compat_suite.keep(suite)
            found["suite"], wrong = suite.plain(), not all(suite.failed.values())
        if given.readme:
            readme = compat_readme.readme(given.readme)
            print(readme.text())
            found["readme"], wrong = readme.plain(), wrong or bool(readme.failed)
    except ValueError as error:
        raise SystemExit(f"compat: {error}") from None
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(wrong)
