"""Files and folders appear whole or not at all, whoever writes them, and a refusal by the system is one clear line."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from psr.files.jsonl import DataError, append_row, read_appended, read_json, write_json, write_jsonl
from psr.files.tables import write_table
from psr.files.whole import StorageError, replacing, restore, write_text
from psr.policy.checkpoints import WholeCheckpoints
from psr.policy.folder import export_policy, load_policy
from psr.policy.tokenizer import load_tokenizer


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save_tensors(path: Path, n: int) -> None:
    with replacing(path) as partial:
        save_file({"values": torch.full((n,), float(n))}, partial)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "json": lambda path, n: write_json(path, ["x" * n]),
    "jsonl": lambda path, n: write_jsonl(path, [{"x": "y" * 100}] * (n // 100)),
    "parquet": lambda path, n: write_table(
        path.with_suffix(".parquet"), [{"x": os.urandom(n).hex()} for _ in range(2)]
    ),
    "text": lambda path, n: write_text(path, "x" * n),
    "checkpoint": lambda path, n: WholeCheckpoints().save_checkpoint({"global_step": 1, "w": torch.ones(n)}, path),
    "safetensors": save_tensors,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_without_room_the_old_file_stays_and_the_reason_is_told(tmp_path: Path, writer: str):
    write = WRITERS[writer]
    write(tmp_path / "file", 2_000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with room(50_000), pytest.raises(StorageError, match=r"file\S* could not be written: .*(too large|writ).*is kept"):
        write(tmp_path / "file", 200_000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "no half a file takes room"


def test_a_model_that_finds_no_room_leaves_the_old_one(tmp_path: Path, llama: Path):
    policy, tokenizer = load_policy(llama), load_tokenizer(llama)
    export_policy(policy, tokenizer, tmp_path / "M1")
    with room(10_000), pytest.raises(StorageError, match="M1 could not be written"):
        export_policy(policy, tokenizer, tmp_path / "M1")
    assert [path.name for path in tmp_path.iterdir()] == ["M1"]
    load_policy(tmp_path / "M1")


def test_an_appended_line_that_finds_no_room_leaves_no_half_line(tmp_path: Path):
    """Else the next one that there is room for would become one with it."""
    path = tmp_path / "rows.jsonl"
    append_row(path, {"id": 1})
    with room(1_000), pytest.raises(StorageError, match=r"rows\.jsonl could not be written"):
        append_row(path, {"id": 2, "text": "x" * 5_000})
    append_row(path, {"id": 3})
    assert [row["id"] for row in read_appended(path)] == [1, 3]


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    for write in (write_json, append_row):
        with pytest.raises(
            StorageError, match=r"file/results\.json could not be written: (File exists|Not a directory)"
        ):
            write(tmp_path / "file" / "results.json", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_is_read_only_is_named(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        write_json(tmp_path / "results.json", {})


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    for number in (1, 2):
        with replacing(tmp_path / "M1") as partial:
            partial.mkdir()
            (partial / str(number)).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["M1", "2"]
    with pytest.raises(KeyError), replacing(tmp_path / "M1") as partial:
        partial.mkdir()
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["M1", "2"]


def test_a_kill_between_the_two_renamings_of_a_folder_loses_neither(tmp_path: Path):
    (tmp_path / "last.ckpt.replaced").mkdir()
    restore(tmp_path / "last.ckpt")
    restore(tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_link_points_to_is_left_alone(tmp_path: Path):
    """A trial's M1 is a link to that of the run it starts from."""
    (tmp_path / "M1").mkdir()
    (tmp_path / "trial").symlink_to(tmp_path / "M1")
    with replacing(tmp_path / "trial") as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert not list((tmp_path / "M1").iterdir()) and (tmp_path / "trial" / "new").is_file()


@pytest.mark.parametrize("torn", ['{"sft": 12.', "", "\x00\x00\x00", "[1]", "null"])
def test_a_torn_state_file_is_named(tmp_path: Path, torn: str):
    (tmp_path / "stages.json").write_text(torn)
    with pytest.raises(DataError, match=r"stages\.json (is torn|holds \w+).*put a copy of it back, or remove it"):
        read_json(tmp_path / "stages.json")
