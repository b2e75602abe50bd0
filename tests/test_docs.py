"""The documents say what the registry has."""

from __future__ import annotations

import re
from pathlib import Path

import fastcam
from bench import report, report_compat, report_methods
from fastcam.compat.differences import DIFFERENCES
from fastcam.meta import METAS

ROOT = Path(__file__).resolve().parent.parent


def test_the_list_of_methods_is_the_registry():
    """`python -m bench report methods` writes what stands between the marks."""
    shown = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- table: .* -->\n(.*)\n<!-- end of table -->", shown, re.DOTALL)
    assert table is not None
    assert table[1] == report_methods.markdown()
    assert all(f"| `{name}` |" in table[1] for name in fastcam.list_methods())
    assert all(f"| `{name}(METHOD)` |" in table[1] for name in METAS)


def test_the_readme_counts_and_names_methods_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    counted = re.search(r"- (\d+) methods on one pipeline", text)
    assert counted is not None
    assert int(counted[1]) == len(fastcam.list_methods())
    section = text[text.index("## Methods\n") : text.index("## Targets\n")]
    named = [name for list_ in re.findall(r"\((`[^)]*)\)", section) for name in re.findall(r"`(\w+)`", list_)]
    assert len(named) > 15
    assert set(named) <= set(fastcam.list_methods())


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_differences_from_the_peers_are_the_table_in_the_code():
    """`python -m bench report compat` writes what stands between the marks."""
    shown = (ROOT / "docs" / "compat.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- table: .* -->\n(.*)\n<!-- end of table -->", shown, re.DOTALL)
    assert table is not None
    assert table[1] == report_compat.markdown(report.newest(suite="compat"))
    assert all(row.what in table[1] for row in DIFFERENCES)


def test_a_difference_says_everything():
    assert len({(row.peer, row.what, row.theirs) for row in DIFFERENCES}) == len(DIFFERENCES)
    for row in DIFFERENCES:
        assert row.peer in {"pytorch-grad-cam", "torchcam", "captum", "Quantus"}
        assert all(isinstance(value, str) and value for value in vars(row).values()), row
        assert not any("\n" in value for value in vars(row).values()), row
