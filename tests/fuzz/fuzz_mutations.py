"""Hostile versions of the content of a file, by its suffix: wrong types and sizes, bombs, paths, damaged bytes."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Any
from xml.etree import ElementTree

import yaml

MARK = "<xss onxss='1'>\"'</script></style>-->"
"""Text that must never become markup."""

NUMBERS = [
    0,
    1,
    -1,
    0.5,
    -0.0,
    255,
    256,
    65536,
    2**31,
    -(2**31),
    2**32,
    2**53 + 1,
    2**63,
    -(2**64),
    10**30,
    10**400,
]
NUMBERS += [1e-320, 1e18, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
TEXTS = [
    "",
    " ",
    "0",
    "-1",
    "1e400",
    "nan",
    "9" * 5000,
    "x" * 70_000,
    "\ud800",
    "\0",
    "\x1b]0;owned\x07",
    "a\nb",
    "a\u202eb",
]
TEXTS += [
    "../../x",
    "../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "//host/x",
    "C:\\x",
    "a/",
    ".",
    "..",
    "~/x",
    "%s%n",
    MARK,
]
TEXTS += [
    "http://127.0.0.1:9/x",
    "file:///etc/passwd",
    "a.tar/b.png",
    "a.mp4/frame_1.jpg",
    "a" * 300 + ".png",
]
TEXTS += ["!!python/object/apply:os.system [id]", "True", "null", "AAAA", "eJwDAAAAAAE="]
CODES: list[Any] = [
    {"size": [10**9, 10**9], "counts": "1"},
    {"size": [12, 16], "counts": [10**12, -5, 3]},
    {"size": [12, 16], "counts": "\x00\xff~"},
    {"size": [12, 16], "counts": [1] * 400},
    {"size": [-12, 16], "counts": "`0"},
    [[1e9, 1e9, -1e9, 1e9, 0, -1e9]],
    [[0, 0, 1]],
    [[]],
    [[float("nan")] * 8],
]
ENTITIES = (
    '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY h SYSTEM "file:///etc/passwd">'
    '<!ENTITY i SYSTEM "http://127.0.0.1:9/x">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 9}">' for old, new in pairwise("bcdefg"))
    + "]>"
)
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)


def mutate(content: bytes, suffix: str, rng: Random) -> bytes:
    """Change the content of a file at one place or a few; how depends on the suffix of its name.

    Args:
        content: A valid file.
        suffix: E.g. `.json`; of an unknown one, bytes are changed.
        rng: Chooses what is changed, and how.
    """
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        change = rng.choice([*_CHANGES.get(suffix, ()), mutate_bytes])
        try:
            content = change(content, rng)
        except (
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
            ElementTree.ParseError,
            yaml.YAMLError,
        ):
            content = mutate_bytes(content, rng)  # the former change has made it another kind of file
    return content


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """Change, insert, remove, repeat or cut bytes."""
    data, at = bytearray(content), rng.randrange(len(content) + 1)
    end = min(at + rng.choice([1, 2, 4, 8, 64]), len(data))
    kind = rng.randrange(8)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        del data[at:end]
    elif kind == 2:
        data[at:at] = data[at:end] * rng.choice([1, 2, 300])
    elif kind == 3:
        data[at:end] = rng.choice(NUMBERS[:8]).__hash__().to_bytes(8, "little", signed=True)[: end - at]
    elif kind == 4:
        data[at:end] = b"\xff" * (end - at)
    elif kind == 5:
        data[at:end] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")[:100]
    elif kind == 6 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    else:
        data[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
    return bytes(data)


def mutate_json(content: bytes, rng: Random) -> bytes:
    """Change a value of a JSON document."""
    return json.dumps(mutate_tree(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def mutate_yaml(content: bytes, rng: Random) -> bytes:
    """Change a value of a YAML document; JSON is YAML too."""
    if b"&" in content:
        raise ValueError("what aliases expand to")
    if rng.random() < 0.1:
        return ALIASES.encode() + re.sub(rb": [^\n]+", b": *i", content, count=rng.choice([0, 1, 2]))
    return mutate_json(json.dumps(yaml.safe_load(content), default=str).encode(), rng)


def double_key(content: bytes, rng: Random) -> bytes:
    """Insert a key of an object once more, or one of another object."""
    places = [match.end() for match in re.finditer(rb"\{", content)]
    keys = re.findall(rb'"[^"\\]*"\s*:', content)
    at = rng.choice(places or [0])
    return (
        content[:at] + rng.choice(keys or [b'"a":']) + json.dumps(_value(rng)).encode() + b"," + content[at:]
    )


def mutate_tree(tree: Any, rng: Random) -> Any:
    """Replace, remove, rename, repeat, move or wrap a value of a tree of lists and dictionaries."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return _value(rng)
    parent, key = rng.choice(places)
    kind = rng.randrange(10)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(TEXTS)] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent[key:key] = [parent[key]] * rng.choice([1, 2, 300])
    elif kind == 3:
        other, name = rng.choice(places)
        parent[key] = copy.deepcopy(other[name])
    elif kind == 4:
        parent[key] = rng.choice([[parent[key]], {"a": parent[key]}, str(parent[key]), [parent[key]] * 5])
    elif kind == 5:
        for _ in range(rng.choice([10, 900])):
            parent[key] = rng.choice([[parent[key]], {"a": parent[key]}])
    else:
        parent[key] = _value(rng)
    return tree


def mutate_xml(content: bytes, rng: Random) -> bytes:
    """Change a text, an attribute or an element of an XML document, or add entities."""
    if b"<!ENTITY" in content:
        raise ValueError("what entities expand to")
    root = ElementTree.fromstring(content)
    nodes = list(root.iter())
    node, kind = rng.choice(nodes), rng.randrange(8)
    if kind == 0:
        body = ElementTree.tostring(root)
        use = rng.choice([b"&g;&g;&g;", b"&h;", b"&i;"])
        return ENTITIES.encode() + re.sub(
            rb">([^<>]+)<", lambda m: b">" + use + b"<", body, count=rng.choice([1, 3])
        )
    if kind == 1 and len(node):
        node.remove(rng.choice(list(node)))
    elif kind == 2:
        node.extend([copy.deepcopy(rng.choice(nodes)) for _ in range(rng.choice([1, 3]))])
    elif kind == 3:
        node.tag = rng.choice(nodes).tag
    elif kind == 4:
        for _ in range(rng.choice([10, 3000])):
            node = ElementTree.SubElement(node, node.tag)
    elif kind == 5 and node.attrib:
        node.set(rng.choice(list(node.attrib)), str(_value(rng)))
    else:
        node.text = str(_value(rng))
    return ElementTree.tostring(root, encoding="unicode").encode("utf-8", "surrogatepass")


def mutate_words(content: bytes, rng: Random) -> bytes:
    """Replace, remove or repeat a word or a line of a text."""
    if rng.random() < 0.2:
        lines = content.split(b"\n")
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice([[], [lines[at]] * 300, [lines[at], rng.choice(lines)]])
        return b"\n".join(lines)
    words = re.split(rb"(\s+)", content)
    words[rng.randrange(len(words))] = str(_value(rng)).encode("utf-8", "surrogatepass")
    return b"".join(words)


def _value(rng: Random) -> Any:
    """Return a value that a format hardly expects."""
    return rng.choice([lambda: rng.choice(NUMBERS), lambda: rng.choice(TEXTS), lambda: rng.choice(_OTHERS)])()


_OTHERS = [None, True, False, [], {}, [[]], [None], {"": None}, *CODES]
_OTHERS += [
    base64.b64encode(b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (9,)}").decode()
]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value of a tree as its parent and its key or index there."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


_Change = Callable[[bytes, Random], bytes]
_CHANGES: dict[str, list[_Change]] = {
    ".json": [mutate_json, mutate_json, mutate_json, double_key],
    ".yaml": [mutate_yaml, mutate_yaml, mutate_words],
    ".xml": [mutate_xml, mutate_xml, mutate_xml],
    **{suffix: [mutate_words] * 3 for suffix in (".txt", ".names", ".data", ".csv")},
}
