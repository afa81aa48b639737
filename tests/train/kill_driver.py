"""A tiny training run in a process of its own, for `test_resume.py`.

  python kill_driver.py WORKDIR [rename:N | step:N]

`rename:N` kills the process with SIGKILL at the N-th moment orbax renames a
finished temporary folder: all arrays are written, the checkpoint is not there
yet. `step:N` kills it when N steps are logged.
"""

import json
import os
import signal
import sys

import jax

from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree
from jaxnmc.train import logs, loop

CONFIG = {
  "vocab_size": 259,
  "hidden_size": 16,
  "num_layers": 1,
  "intermediate_size": 24,
}
STEPS, EVERY = 40, 5


def die():
  os.kill(os.getpid(), signal.SIGKILL)


def die_at_rename(count):
  left = [count]

  def hook(event, args):
    if event == "os.rename" and "orbax-checkpoint-tmp" in str(args[0]):
      left[0] -= 1
      if left[0] == 0:
        die()

  sys.addaudithook(hook)


def die_at_step(step):
  write = logs.JsonLines.write

  def write_and_die(self, **record):
    write(self, **record)
    if record["step"] >= step:
      die()

  logs.JsonLines.write = write_and_die


def main(workdir, *deaths):
  for death in deaths:
    how, _, number = death.partition(":")
    {"rename": die_at_rename, "step": die_at_step}[how](int(number))
  config = matmulfree.Config(**CONFIG)
  documents = [
    f"The {w} has {n} legs." for n in range(9) for w in ("cat", "ox")
  ]
  result = loop.train(
    fn=matmulfree.make(config),
    init_params=lambda: matmulfree.init_params(config, jax.random.key(0)),
    model_config=CONFIG,
    tokenizer=ByteTokenizer(),
    documents=documents,
    held=["The dog has 4 legs."],
    recipe=loop.Recipe(steps=STEPS, batch=2, seq=16, warmup=2),
    rhythm=loop.Rhythm(
      checkpoint_every=EVERY, log_every=1, eval_every=EVERY, progress=False
    ),
    workdir=workdir,
  )
  print(json.dumps(result))


if __name__ == "__main__":
  main(*sys.argv[1:])
