"""Ten thousand invented conversations, from messages to the lines of both files, beside the contract read literally."""

from pathlib import Path

import pytest

from tests.training.preparation.truth import compare, write_chats


@pytest.mark.parametrize("seed", range(20))
def test_the_data_set_is_the_literal_one(tmp_path: Path, seed: int) -> None:
    """20 data sets of 500 conversations; every fourth is made by the second recipe too."""
    written = write_chats(tmp_path, seed, 500)
    tally = compare(tmp_path, written, "windows")
    assert tally.differences == []
    assert tally.conversations >= 500
    assert min(tally.windows, tally.seeds) > 40
    if seed % 4 == 0:
        assert compare(tmp_path, written, "conversations").differences == []
