"""Load a config file, YAML or JSON, into the dataclass or msgspec Struct whose fields are its keys."""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from ghost.errors import ConfigError
from ghost.installed import EDITED, FOLDER, SHIPPED, config_file

Config = TypeVar("Config")


def load(kind: type[Config], name: str, path: Path | None = None) -> Config:
    """Load `path`; by default config/`name` of the current folder, or the one that ships with ghost.

    `name` is one that `ghost init` writes. An impossible combination of values is a ConfigError that the class raises
    in `__post_init__`, without the file's name. Raises ConfigError with the file, the key, what was found and the
    nearest valid name.
    """
    path = path or config_file(name)
    document = _parse(path, name)
    try:
        if complaint := next(_misfits(kind, document, ""), None):
            raise ConfigError(complaint)
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_in_words(str(error), document, name)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@cache
def _loader() -> Any:
    """YAML 1.1, but 5e-5 is a number without a point too, and a duplicate key is an error: the last one would win, and
    could drop an `exclude_people`."""
    import yaml  # a fiftieth of a second, and many verbs read JSON alone

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            found: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in found:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
                found.add(str(key.value))
            return super().construct_mapping(node, deep)

    number = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"duplicate key {twice[0]}")
    return dict(pairs)


def _parse(path: Path, name: str) -> Any:
    language = "YAML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):  # YAML would read two halves of an escaped emoji
            language = "JSON"
            return json.loads(text, object_pairs_hook=_each_key_once)
        loader = _loader()(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `ghost init` writes {FOLDER / name} to edit") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from error
    except Exception as error:  # PyYAML raises what the conversion of a value raises: 2024-02-30, !!bool 5
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        why = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise ConfigError(f"{path}{line}: not {language} ({why})") from error


def _misfits(kind: Any, value: Any, key: str) -> Iterator[str]:
    """Yield what msgspec does not refuse, or not by name: unknown keys, words that are no choice, infinite numbers."""
    kinds = get_args(kind)
    words = [word for part in (kind, *kinds) if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(value, dict) and (dataclasses.is_dataclass(kind) or hasattr(kind, "__struct_fields__")):
        hints = get_type_hints(kind)
        for name, inner in value.items():
            if name not in hints:
                yield f"unknown key {_dotted(key, name)}; {nearest(str(name), hints, key)}"
            else:
                yield from _misfits(hints[name], inner, _dotted(key, name))
    elif isinstance(value, dict | list) and kinds:
        inner_kind = kinds[-2] if kinds[-1] is ... else kinds[-1]
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(name, str):  # YAML reads no: and 5: as other than text
                yield f"{key}: expected text as a key, found {name!r}; put it in quotes"
            yield from _misfits(inner_kind, inner, _dotted(key, name))
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key}: expected a number, found {value}"
    elif isinstance(value, str) and words and value not in words:
        number = "" if get_origin(kind) is Literal else " or a number"
        yield f"{key}: {value!r} is not one of {', '.join(map(str, words))}{number}"


def nearest(name: str, known: Iterable[str], key: str = "") -> str:
    """Propose the known name that is nearest to `name`, or all of them if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {_dotted(key, near[0])}?" if near else f"known: {', '.join(known)}"


def _dotted(key: str, name: str | int) -> str:
    return f"{key}[{name}]" if isinstance(name, int) else f"{key}.{name}" if key else name


_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}
_WORDS |= {"date": "a date such as 2024-02-29", "object": "keys"}


def _in_words(error: str, document: Any, name: str) -> str:
    """Rephrase msgspec's complaint, such as: Expected `int`, got `str` - at `$.limits.commands_per_minute`."""
    complaint, _, place = error.partition(" - at `$")
    place = place.strip(".`")
    if complaint.startswith("Object missing"):
        return f"missing key {_dotted(place, complaint.split('`')[1])}; {SHIPPED / EDITED[name]} has every key"
    for step in re.findall(r"\w+|\.\.\.", place):
        # msgspec does not name the key of a mapping that is not a class.
        document = ... if step == "..." or document is ... else document[int(step) if step.isdecimal() else step]
    complaint = complaint.partition(", got ")[0].replace("Invalid RFC3339 encoded date", "Expected `date`")
    complaint = re.sub("`(.*?)`", lambda kinds: " or ".join(_WORDS.get(k, k) for k in kinds[1].split(" | ")), complaint)
    found = "" if document is ... else f", found {_kind(document)}"
    if isinstance(document, str) and "a list" in complaint:
        found += f"; write {json.dumps([document], ensure_ascii=False)}" * (_kind(document) == repr(document))
    return f"{place or 'the file'}: {complaint[:1].lower()}{complaint[1:]}{found}"


def _kind(value: Any) -> str:
    """Describe a value. A long text may be a token in the wrong place, so it is not repeated."""
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "keys" if isinstance(value, dict) else "a list" if value else "an empty list"
    return repr(value) if len(repr(value)) <= 30 else f"text of {len(repr(value)) - 2} characters"
