"""What names, versions and keys may look like.

Step ids and memo keys become parts of field paths in the run document, so nothing that could be read as a path, an
operator or an array position gets through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamline.errors import InvalidKey, InvalidName

NAME_MAX = 100
KEY_MAX = 256
NOTE_MAX = 4096
TAGS_MAX = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_OCCURRENCE = re.compile(r"@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}", re.ASCII)


def check_name(value: object, field: str) -> str:
    """Return `value` if it may name a workflow or step; raise `InvalidName` otherwise."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value.isdigit():
        raise InvalidName(
            f"{field}: 1 to {NAME_MAX} letters, digits, _ and -, beginning with a letter or digit, not digits alone",
            field=field,
        )
    return value


def check_version(value: object, field: str = "version") -> str:
    """Return `value` if it may be a version; raise `InvalidName` otherwise."""
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise InvalidName(
            f"{field}: 1 to 64 letters, digits and . + _ -, beginning with a letter or digit", field=field
        )
    return value


def check_prefix(value: object) -> str:
    """Return `value` if the names of collections may begin with it; raise `InvalidName` otherwise."""
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise InvalidName("prefix: 1 to 64 letters, digits and . _ -, beginning with a letter", field="prefix")
    return value


def check_key(value: object, field: str) -> str:
    """Return `value` if it may be an idempotency or flow-control key; raise `InvalidKey` otherwise."""
    if not isinstance(value, str) or not value or len(value) > KEY_MAX or "\0" in value or not is_storable(value):
        raise InvalidKey(f"{field}: a string of 1 to {KEY_MAX} characters without NUL", field=field)
    return value


def check_note(value: object, field: str) -> str | None:
    """Return what somebody said of an operation, if it may be stored; raise `InvalidKey` otherwise."""
    if value is not None and (not isinstance(value, str) or len(value) > NOTE_MAX or not is_storable(value)):
        raise InvalidKey(f"{field}: a string of at most {NOTE_MAX} characters", field=field)
    return value


def check_run_id(value: object) -> str:
    """Return `value` if it may be a run id; raise `InvalidKey` otherwise."""
    return check_key(value, "run_id")


def check_new_run_id(value: object) -> str:
    """Return `value` if a run may be started under it; raise `InvalidKey` for the ids of schedules' occurrences."""
    run_id = check_run_id(value)
    if _OCCURRENCE.search(run_id):
        raise InvalidKey("run_id: ids that end in @ and an instant are those of schedules", field="run_id")
    return run_id


def check_path_key(value: object, field: str) -> str:
    """Return `value` if it may be one part of a field path (memo key, metadata key); raise `InvalidKey` otherwise."""
    key = check_key(value, field)
    if "." in key or key.startswith("$"):
        raise InvalidKey(f"{field}: no dots, and no leading $", field=field)
    return key


def check_tags(tags: object) -> list[str]:
    """Return the tags as a list without repeats, in the order given; raise `InvalidKey` otherwise."""
    if isinstance(tags, str) or not isinstance(tags, (list, tuple, set, frozenset)):
        raise InvalidKey("tags: a sequence of strings", field="tags")
    unique = list(dict.fromkeys(check_key(tag, f"tags[{i}]") for i, tag in enumerate(tags)))
    if len(unique) > TAGS_MAX:
        raise InvalidKey(f"tags: at most {TAGS_MAX}", field="tags")
    return unique


def check_metadata(metadata: object) -> dict[str, object]:
    """Return the metadata as a dict with keys that a filter can reach; raise `InvalidKey` otherwise."""
    if not isinstance(metadata, Mapping):
        raise InvalidKey("metadata: a mapping with string keys", field="metadata")
    return {check_path_key(key, "metadata key"): value for key, value in metadata.items()}


def is_storable(text: str) -> bool:
    """Return whether text can be encoded: a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
