"""The training scripts under number formats, from the start to a score."""

import json

import pytest

from jaxnmc.quantize import Plan


@pytest.mark.slow
def test_training_under_a_plan_goes_on_from_another_run(smoke, tmp_path):
  first, second = tmp_path / "float", tmp_path / "qat"
  steps = ("--steps", "4", "--noprogress")
  smoke("train_matmulfree", *steps, "--workdir", first, compile_fast=True)
  flags = (*steps, "--workdir", second, "--init_from", first / "best.npz")
  flags = (*flags, "--qat", "W8A8")
  smoke("train_matmulfree", *flags, compile_fast=True)
  found = json.loads((second / "result.json").read_text())
  plan = Plan.load(second / "plan.json")
  assert plan.integers
  assert plan.name == "W8A8"
  assert found["held_bpb"] > 0
  # Done already, and the plan is the one that is there.
  smoke("train_matmulfree", *flags, compile_fast=True)
  assert json.loads((second / "result.json").read_text())["steps"] == 4
