"""A value of another type or out of bounds ends in one line that begins with the setting's whole name."""

import pytest

from psr.cli.main import main

NAMED = [
    ("search --width x", "width is x: it must be a whole number"),
    ("search --limit x", "limit is x: it must be a whole number"),
    ("search --temperature nan", "temperature is nan: it must be a number"),
    ("search --judge.max_tokens nan", "judge.max_tokens is nan: it must be a whole number"),
    ("search --judge.kind foo", "judge.kind is foo: it must be one of 'self', 'random', 'verifier', 'prm'"),
    ("search --methods [foo]", "methods is foo: it must be one of 'greedy'"),
    ("search --engine LocalEngine --engine.max_batch x", "engine.max_batch is x: it must be a whole number"),
    ("search --engine SGLangEngine --engine.launch.memory_fraction x", "engine.launch.memory_fraction is x: it must"),
    ("evaluate --widths x", "widths is x: it must be a list"),
    ("report --images 3", "images is 3: it must be true or false"),
    ("search --engine LocalEngine --engine.max_batch 0", "engine.max_batch is 0: it must be at least 1"),
    ("search --judge.score_samples -1", "judge.score_samples is -1: it must be at least 1"),
    ("search --width 0", "width is 0: it must be at least 1 and at most 1,000,000,000"),
    ("fit --model SFTModule --data SFTDataModule --data.batch_size x", "data.batch_size is x: it must be a whole"),
    ("fit --model SFTModule --model.model M --data SFTDataModule --data.ift F --model.lr -1", "model.lr is -1.0: it"),
]


@pytest.mark.parametrize(("words", "message"), NAMED)
def test_the_line_begins_with_the_setting_and_its_value(words: str, message: str):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    said = str(ended.value)
    assert said.startswith(f"psr: {message}")
    assert "\n" not in said and "class" not in said and "Union" not in said
