"""Charts in a real browser: texts do not overlap, nothing is cut off."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.counting.histograms import Histogram
from jaxnmc.chip.placement import place
from jaxnmc.report import activity, charts, html, meshmap
from tests.chip import synthetic

# Every text of every drawing: is it inside, and does it meet another one?
_LOOK = """<script>
const wrong = [];
const wide = document.scrollingElement.scrollWidth - window.innerWidth;
if (wide > 1) wrong.push(`page is ${wide} px too wide`);
let texts = 0;
for (const svg of document.querySelectorAll("svg")) {
  const out = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll("text")].map(t =>
    [t.textContent, t.getBoundingClientRect()]);
  texts += boxes.length;
  for (const [i, [name, a]] of boxes.entries()) {
    if (a.left < out.left - 1 || a.right > out.right + 1 ||
        a.top < out.top - 1 || a.bottom > out.bottom + 1)
      wrong.push(`${name} is cut off`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Line boxes are higher than their letters.
      if (x > 1 && y > 4) wrong.push(`${name} meets ${other}`);
    }
  }
}
document.body.innerHTML = "<pre>" + JSON.stringify({texts, wrong}) + "</pre>";
</script>"""


def _look(page: str, tmp_path, width: int) -> dict:
  """What the browser says of a page."""
  browser = shutil.which("chromium") or shutil.which("google-chrome")
  if browser is None:
    pytest.skip("no chromium to look at pages with")
  file = tmp_path / "page.html"
  file.write_text(page.replace("</body>", _LOOK + "</body>"))
  done = subprocess.run(
    [
      *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
      *(f"--window-size={width},900", f"--user-data-dir={tmp_path / 'home'}"),
      *("--dump-dom", file.as_uri()),
    ],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
  return json.loads(unescape(found.group(1)))


@pytest.fixture(scope="module")
def page():
  """All charts of a run on three chips."""
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = place.place(net, hardware.loihi2(chips=3, cores_per_chip=30))
  parts = [synthetic.traffic(placed, range(90), seed=1)]
  parts += [synthetic.traffic(placed, [0], seed=s) for s in range(9)]
  bits = np.arange(33) ** 3
  roles = ("embed", "layers.0.mlp.down.norm.square_high", "layers.0.out")
  found = {r: Histogram(bits, np.arange(9), 8) for r in roles}
  counters = Counters.of(parts, placed, histograms=found)
  done = activity.collect(counters, placed, cost(counters, placed))
  return html.page(
    *("a page", "of a test"),
    charts.steps(done["steps"]),
    charts.power(done["power"]),
    meshmap.draw(meshmap.collect(counters, placed)),
    charts.core_messages(done["core_messages"]),
    charts.messages(done["messages"]),
    charts.rates(done["messages"]),
    html.bars(["a layer", "another"], [1.0, 123456.7], "weights"),
  )


@pytest.mark.parametrize("width", [1100, 500])
def test_nothing_overlaps_or_is_cut_off(page, tmp_path, width):
  found = _look(page, tmp_path, width)
  assert found["wrong"] == []
  assert found["texts"] > 60


def test_the_browser_sees_what_is_wrong(tmp_path):
  bad = (
    '<svg width="90" height="30"><text x="1" y="12">one</text>'
    '<text x="5" y="12">two</text><text x="80" y="25">three</text></svg>'
  )
  found = _look(html.page("a", "b", bad), tmp_path, 1100)
  assert found["wrong"] == ["one meets two", "three is cut off"]
