"""Ways to spoil a file: bytes anywhere, and what a reader trusts (lengths, headers, members of an archive)."""

import io
import json
import random
import zipfile
from typing import Any

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**53,
        2**63,
        10**400,
        1e308,
        -0.5,
        "",
        "a" * 5000,
        "\x00",
        "\ud83d",
        "../../etc/passwd",
    ),
    *(
        "/dev/zero",
        "${x}",
        "<script>",
        [],
        {},
        [[]],
        {"": {}},
        "NaN",
        [1, 2, 3],
        [1e9, 1e9, 1e9],
        "os:system",
        "x.py:f",
    ),
    *("resnet50d", "cifar_wide_resnet", "timm", "layout", "factory"),
)


def mutated(content: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    """Another file: one to four changes, half of them where the format is known."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        structured = _structured(content, draw) if draw.random() < 0.5 else None
        content = structured if structured is not None else _bytes(content, others, draw)
    return content


def _structured(content: bytes, draw: random.Random) -> bytes | None:
    if content[:2] == b"PK":
        return _zip(content, draw)
    if content[8:9] == b"{":
        return _safetensors(content, draw)
    if content[:1] in b"{[":
        return _json(content, draw)
    return None


def _bytes(content: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    found = bytearray(content or b"\x00")
    at = draw.randrange(len(found))
    if draw.random() < 0.5:
        at = min(at, draw.randrange(1, 200))  # heads are what readers trust
    at = min(at, len(found) - 1)
    kind = draw.randrange(7)
    if kind == 0:
        found[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        found[at] = draw.randrange(256)
    elif kind == 2:  # a length or an offset
        width = draw.choice((1, 2, 4, 8))
        number = draw.choice(INTERESTING) % 256**width
        found[at : at + width] = number.to_bytes(width, draw.choice(("little", "big")))
    elif kind == 3:
        del found[at:]
    elif kind == 4:
        del found[at : at + draw.randrange(1, 64)]
    elif kind == 5:
        piece = found[at : at + draw.randrange(1, 512)]
        found[at:at] = piece * draw.choice((1, 2, 100))
    else:
        other = draw.choice(others)
        start = draw.randrange(max(1, len(other)))
        found[at : at + draw.randrange(0, 64)] = other[start : start + draw.randrange(1, 512)]
    return bytes(found)


def _json(content: bytes, draw: random.Random) -> bytes | None:
    """A value, a key or a depth changed."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    places = list(_places(tree))
    if not places:
        return None
    parent, key = draw.choice(places)
    kind = draw.randrange(5)
    if kind == 0 and isinstance(parent, dict):
        parent[draw.choice(("", "x", "schema_version", "__class__", str(key) * 2))] = parent.pop(key)
    elif kind == 1:
        del parent[key]
    elif kind == 2:
        parent[key] = draw.choice(places)[0]
        if _is_circular(tree):
            return b"[" * draw.choice((100, 10_000)) + content
    elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * draw.choice((-1, 0, 0.5, 1.5, 10**9))
    else:
        parent[key] = draw.choice(VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [tree]
    while waiting and len(found) < 5000:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            waiting.append(node[key])
    return found


def _is_circular(tree: Any) -> bool:
    try:
        json.dumps(tree)
    except ValueError:
        return True
    return False


def _safetensors(content: bytes, draw: random.Random) -> bytes | None:
    """The header's JSON, or the record in it, with its length set right."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    record = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    if isinstance(record, dict) and isinstance(record.get("kdcompress"), str) and draw.random() < 0.7:
        changed = _json(record["kdcompress"].encode(), draw)
        if changed is None:
            return None
        record["kdcompress"] = changed.decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = _json(json.dumps(header).encode(), draw) or b"{}"
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _zip(content: bytes, draw: random.Random) -> bytes | None:
    """A member changed, and the archive written anew, so that its checksums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # spoiled before
        return None
    pickles = [name for name in members if name.endswith(".pkl")]
    name = draw.choice(pickles if pickles and draw.random() < 0.7 else list(members) or [""])
    if not members:
        return None
    members[name] = _bytes(members[name], tuple(members.values()), draw)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return stream.getvalue()
