"""Python in the pages of docs runs as it stands."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [p for p in sorted(DOCS.glob("*.md")) if "```python" in p.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_runs(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
  # The blocks of a page are one program, as a reader would type it.
  exec(compile("\n".join(blocks), page.name, "exec"), {"__name__": "page"})
