"""What a newcomer does first, with the model that ships."""

import json
import re

import pytest

from jaxnmc.cli import parser
from jaxnmc.io import zoo

pytestmark = pytest.mark.skipif(
  parser.ZOO_MODEL not in zoo.names(), reason="the zoo model is not built yet"
)


def test_demo_writes_a_story(run, tmp_path):
  target = tmp_path / "demo.json"
  status, out, err = run(
    *("demo", "--tokens", 12, "--engine", "functional", "--json", target)
  )
  assert status == 0, err
  assert out.strip().splitlines()[-1].startswith("loihi == fixed: bit-equal (")
  assert max(map(len, out[out.index("on this machine") :].splitlines())) <= 80
  data = json.loads(target.read_text())
  assert data["prompt"] == parser.DEMO_PROMPT
  assert re.fullmatch(r"[\w\s.,!?'\"-]+", data["text"])
  assert data["placement"]["cores_used"] > 1


@pytest.mark.slow
def test_code_of_the_readme_runs(repo_root, capsys):
  text = (repo_root / "README.md").read_text(encoding="utf-8")
  (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
  assert len(code.splitlines()) <= 20
  exec(compile(code, "README.md", "exec"), {})
  assert "mj_per_token" in capsys.readouterr().out
