"""`python -m jaxnmc COMMAND`."""

import sys

from jaxnmc.cli import main

if __name__ == "__main__":
  sys.exit(main())
