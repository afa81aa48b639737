"""tools/bench_llama.py: what needs no llama.cpp."""

import json
import sys

import pytest

from jaxnmc.report.bench import shapes
from tools import bench_llama

SHAPE = shapes.Shape(layers=2, hidden=256, intermediate=512, vocab=300)
# 2 blocks of 4 x 256 x 256 + 3 x 256 x 512, both ends, 5 norms.
PARAMETERS = 2 * (262144 + 393216) + 2 * 300 * 256 + 5 * 256


def test_of(prompt, tokens, speeds, **changes):
  """One test as llama-bench prints it."""
  return {
    "build_commit": "abc1234",
    "build_number": 7,
    "cpu_info": "a CPU",
    "backends": "CPU",
    "model_filename": "m.gguf",
    "model_type": "llama ?B TQ2_0 - 2.06 bpw ternary",
    "model_size": PARAMETERS // 4,
    "model_n_params": PARAMETERS,
    "n_threads": 2,
    "type_k": "f16",
    "n_gpu_layers": 0,
    "use_mmap": True,
    "n_prompt": prompt,
    "n_gen": tokens,
    "n_depth": 0,
    "avg_ns": 1,
    "avg_ts": 1.0,
    "samples_ns": [1 for _ in speeds],
    "samples_ts": list(speeds),
  } | changes


test_of.__test__ = False


def printed(**changes):
  tests = [test_of(512, 0, [200.5], **changes)]
  tests += [test_of(0, 32, [99.0, 101.5, 100.0], **changes)]
  return json.dumps(tests, indent=2)


def test_speeds_and_facts_are_read():
  found = bench_llama.parse(printed(), SHAPE)
  assert found["prefill"] == 200.5
  assert found["decode"] == 100.0
  assert found["facts"]["build_commit"] == "abc1234"
  assert found["facts"]["n_threads"] == 2
  assert found["facts"]["model_size"] == PARAMETERS // 4


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("", "Expecting value"),
    ("[]", "'prefill'"),
    (json.dumps([test_of(512, 0, [1.0])]), "'decode'"),
    (json.dumps([test_of(512, 32, [1.0])]), "in one test"),
    (json.dumps([test_of(512, 0, []), test_of(0, 32, [1])]), "no median"),
    (printed(model_n_params=PARAMETERS - 1), "--make writes one that fits"),
  ],
)
def test_other_results_are_refused(text, told):
  with pytest.raises(ValueError, match=told):
    bench_llama.parse(text, SHAPE)


def test_the_model_has_the_weights_of_the_shape():
  assert bench_llama.parameters(SHAPE) == PARAMETERS
  big = shapes.SHAPES["370M"]
  matrices = {n: s for n, s in bench_llama.tensors(big) if len(s) == 2}
  met = [s for n, s in matrices.items() if n != "token_embd.weight"]
  assert sum(a * b for a, b in met) == big.weights
  # TQ2_0 packs rows in blocks of 256.
  assert all(width % 256 == 0 for _, width in matrices.values())


def test_the_vocabulary_is_whole():
  pieces = bench_llama.vocabulary(32000)
  assert len(set(pieces)) == len({text for text, _ in pieces}) == 32000
  assert ("<0x0A>", 6) in pieces  # the line feed, which the reader looks for


def program(tmp_path, body):
  path = tmp_path / "llama-bench"
  path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
  path.chmod(0o755)
  return str(path)


def test_the_program_is_asked_for_prompt_tokens_and_threads(tmp_path):
  said = tmp_path / "arguments"
  body = f"open({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))\n"
  body += f"print({printed()!r})"
  found = bench_llama.llama(program(tmp_path, body), "m.gguf", 2, SHAPE)
  assert (found["prefill"], found["decode"]) == (200.5, 100.0)
  asked = said.read_text()
  for part in ("-m m.gguf", "-o json", "-p 512", "-n 32", "-t 2", "-r 1"):
    assert part in asked


def test_a_program_that_fails_is_told(tmp_path):
  path = program(tmp_path, "sys.exit('error: no such model')")
  with pytest.raises(ValueError, match="with 1: error: no such model"):
    bench_llama.llama(path, "m.gguf", 1, SHAPE)
  with pytest.raises(ValueError, match="No such file"):
    bench_llama.llama(str(tmp_path / "none"), "m.gguf", 1, SHAPE)


def test_turns_alternate_inside_rounds():
  seen = []

  def theirs(threads):
    seen.append(threads)
    return {"prefill": 1.0, "decode": 1.0}

  def ours():
    seen.append("ours")
    return {"prefill": 2.0, "decode": 2.0}

  said = []
  turns = bench_llama.take_turns(3, (1, 2), theirs, ours, said.append)
  assert seen == [1, "ours", 2, "ours"] * 3
  assert [x["threads"] for x in turns] == [1, 2] * 3
  told = [x for x in said if "decode 1.0 and 2.0" in x]
  assert len(told) == len(turns)


def turns(decode, threads=1):
  """Turns of (theirs, ours); prompts are ten times as fast."""
  speeds = lambda x: {"decode": x, "prefill": 10 * x}
  return [
    {"threads": threads, "load": 1.0, "llama": speeds(a), "ours": speeds(b)}
    for a, b in decode
  ]


def test_medians_of_both_are_compared():
  slow = turns([(100, 150), (50, 200), (200, 160)])
  fast = turns([(400, 150), (400, 200), (100, 160)], threads=2)
  rows = bench_llama.compare([x for pair in zip(slow, fast) for x in pair])
  told = [(row["what"], row["threads"], row["ratio"]) for row in rows]
  assert told == [
    ("decode", 1, 1.6),
    ("decode", 2, 0.4),
    ("prefill", 1, 1.6),
    ("prefill", 2, 0.4),
  ]
  first = rows[0]
  assert (first["least_ratio"], first["largest_ratio"]) == (0.8, 4.0)
  assert first["llama_tokens_per_s"] == 100
  assert first["ours_tokens_per_s"] == 160
  assert {row["label"] for row in rows} == {"measured"}
  # Beside one thread of theirs 1.6, but two are faster.
  assert [row.get("goal") for row in rows] == [None, "not met", None, None]


@pytest.mark.parametrize(
  ("ours", "goal"), [(99, "not met"), (100, "met"), (150, "goal")]
)
def test_only_decode_has_a_goal(ours, goal):
  decode, prefill = bench_llama.compare(turns([(100, ours)]))
  assert decode["goal"] == goal
  assert "goal" not in prefill


def test_the_table_fits_a_terminal():
  found = {
    "rows": bench_llama.compare(turns([(98765.4, 1), (1, 98765.4)], 128)),
    "rounds": 5,
    "load_average": {"before": 10.0, "least": 10.0, "largest": 100.0},
    "llama": bench_llama.parse(printed(), SHAPE)["facts"],
    "ours": {"cpus": 128, "kernel": "avx512_vnni"},
  }
  text = bench_llama.render(found)
  assert max(map(len, text.splitlines())) <= 80
  assert "2.00 bits per weight" in text
  assert "1.00  0.00 to 98765.40  >= 1.0" in text


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ([], "--bench and --model"),
    (["--bench", "b", "--model", "m", "--rounds", "4"], "at least 5"),
    (["--bench", "b", "--model", "m", "--threads", "1,0"], "--threads 1,0"),
  ],
)
def test_a_wrong_command_line_is_refused(arguments, told, capsys):
  with pytest.raises(SystemExit):
    bench_llama.main(arguments)
  assert told in capsys.readouterr().err
