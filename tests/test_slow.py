"""The list of slow tests has only tests that there are."""

import pytest

from tests.conftest import ROOT, slow_tests


@pytest.mark.parametrize("entry", slow_tests())
def test_the_test_is_there(entry):
  path, _, rest = entry.partition("::")
  name = rest.rpartition("::")[2].partition("[")[0].partition("__")[0]
  text = (ROOT / path).read_text(encoding="utf-8")
  assert f"def {name}(" in text
