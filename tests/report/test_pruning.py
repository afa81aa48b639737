"""The table of what was pruned, of models of any size."""

from jaxnmc.report import pruning, tables


def test_a_large_model_fits(capsys):
  """GPT-2 large, 774 M."""
  row = {
    "layer": 35,
    "heads": [20, 12],
    "units": [5120, 3584],
    "parameters": [19_677_440, 13_117_440],
    "bytes": [78_709_760, 52_469_760],
    "zeros": 0.5,
  }
  total = {
    "heads": [720, 432],
    "units": [184_320, 129_024],
    "parameters": [774_030_080, 537_869_312],
    "bytes": [3_096_120_320, 2_151_477_248],
    "zeros": 0.0,
  }
  pruning.show(tables.console(), {"layers": [row], "total": total})
  lines = capsys.readouterr().out.splitlines()
  assert max(map(len, lines)) <= 80
  assert lines[0] == (
    "What is left of 774,030,080 parameters, 3.10 GB as float32 (measured)"
  )
  rows = [" ".join(line.split()) for line in lines]
  assert "layer heads units parameters left, % MB zeros, %" in rows
  assert "35 20 → 12 5120 → 3584 13,117,440 66.7 52.47 50.0" in rows
  assert "all 720 → 432 184320 → 129024 537,869,312 69.5 2151.48 0.0" in rows
