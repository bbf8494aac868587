"""The README is short, its links lead somewhere, and so do those of the pages that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("pipeline/**/*.md"))
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


def test_a_stranger_reads_it_in_five_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1500
    assert len(re.findall(r"\d+(?:[.,]\d+)*", text)) <= 120


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall((ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page.parent / link).exists()] == []
