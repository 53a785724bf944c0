"""The list of guards is whole: each snippet is there once, and each test that should notice exists."""

import re

import pytest
from guards import GUARDS, ROOT


def test_there_are_forty_and_each_has_a_name_of_its_own():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS) >= 40


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_is_where_the_list_says_and_its_tests_exist(guard):
    whole = (ROOT / guard.file).read_text(encoding="utf-8")
    without = guard.removed_from(whole)
    assert without != whole
    if guard.file.endswith(".py"):
        compile(without, guard.file, "exec")  # what cannot be read is no guard removed
    assert guard.why and guard.tests
    for test in guard.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, re.MULTILINE), test
