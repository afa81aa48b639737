"""The co-design sweep: its smoke version, and its numbers another way."""

import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip.costs.pricing import price


@pytest.fixture(scope="module")
def script(load_script):
  return load_script("codesign_sweep")


@pytest.fixture(scope="module")
def sweep(script):
  return script.Sweep(smoke=True, variants=64, seed=1)


def test_gradients_are_those_of_a_larger_constant(script, sweep):
  for mode in script.MODES:
    rows = {row["constant"]: row for row in sweep.rows(mode)}
    assert list(rows) == sorted(rows, key=lambda n: -rows[n]["gradient"])
    assert sum(r["gradient"] for r in rows.values()) == pytest.approx(1)
    now = getattr(sweep.price, f"{mode}_s")
    for name, row in rows.items():
      more = sweep.base.replace(**{name: 1.001 * row["value"]})
      then = getattr(price(more, sweep.work, np), f"{mode}_s")
      npt.assert_allclose(
        row["gradient"], np.log(then / now) / np.log(1.001), atol=1e-3
      )
      assert row["faster_without"] >= 1
    assert sum(r["first_percent"] for r in rows.values()) == pytest.approx(100)


def test_steps_add_up_to_a_token(sweep):
  depths = sweep.depths()
  assert len(depths) == sweep.placed.steps_per_token
  total = 1e-6 * sum(d["us"] for d in depths)
  npt.assert_allclose(total, sweep.price.generate_s)
  for row in depths:
    assert row["us"] == max(row["terms_us"].values())
    assert row["terms_us"][row["set_by"]] == row["us"]


def test_smoke(smoke, tmp_path):
  pytest.importorskip("matplotlib")
  where = ("--workdir", tmp_path, "--json", tmp_path / "all.json")
  done = smoke("codesign_sweep", *where)
  assert (
    max(map(len, done.stdout.replace(str(tmp_path), "").splitlines())) <= 80
  )
  assert "(good)" in done.stdout
  data = json.loads((tmp_path / "all.json").read_text())
  assert data["label"] == "modelled"
  assert {row["constant"] for row in data["prefill"]} >= {"synop_s"}
  assert (tmp_path / "codesign_sweep.png").stat().st_size > 10_000
