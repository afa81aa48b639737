"""Speed of kernels and whole models against the memory limit; `make bench`.

The same as `jaxnmc bench`: one run, interleaved, medians, load average shown,
compile time apart.  `--json FILE` keeps the figures.
"""

import sys

from jaxnmc.cli import main

if __name__ == "__main__":
  sys.argv.insert(1, "bench")
  sys.exit(main())
