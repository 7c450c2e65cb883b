"""YAML documents that people write: recipes, overlays, sweep files. Knows the format; no schema.

Numbers as everybody writes them: YAML 1.1, which PyYAML follows, reads 1e-6 as text.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from psr.files.jsonl import DataError
from psr.terminal.text import brief


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's floats, and without equal keys, of which only the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if key.value != "<<"]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {brief(twice)} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty where the file is.

    Raises:
        DataError: no such file, no UTF-8, no YAML, a key twice, or something else than a mapping.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise DataError(f"{path}, line {line}: not YAML ({error.problem})") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply to be read") from None
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OSError,
    ) as error:  # also no UTF-8, huge numbers
        raise DataError(f"{path}: not YAML in UTF-8 ({' '.join(str(error).split())})") from None
    if document is not None and not isinstance(document, dict):
        raise DataError(f"{path}: expected names and values, found {type(document).__name__}")
    if not all(isinstance(name, str) for name in document or {}):
        raise DataError(f"{path}: the names must be texts; put quotes around them")
    return document or {}
