"""Private names: where a source touches what another library keeps to itself."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator

PROTOCOL = re.compile(r"_repr_\w+_|_ipython_display_")
"""Names with an underscore that IPython asks of any object."""

OF_STRINGS = {"endswith", "join", "partition", "removeprefix", "removesuffix", "replace", "rpartition", "split", "sub",
              "startswith", "strip"}  # fmt: skip
"""Functions whose arguments are text, and no name of an attribute."""


class Classes:
    """What the classes of some sources define themselves, by the names of classes and of their bases."""

    def __init__(self, sources: Iterable[str]) -> None:
        self._own: dict[str, set[str]] = {}
        self._bases: dict[str, set[str]] = {}
        for source in sources:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    self._own.setdefault(node.name, set()).update(defined_in(node))
                    bases = {base for base in map(_last_name, node.bases) if base}
                    self._bases.setdefault(node.name, set()).update(bases)

    def own(self, name: str, inherited_only: bool = False) -> set[str]:
        """What a class of that name and its bases among these sources define."""
        found: set[str] = set() if inherited_only else set(self._own.get(name, ()))
        for base in self._bases.get(name, ()):
            if base != name:
                found |= self.own(base)
        return found


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore, and no protocol asks for it."""
    return name.startswith("_") and name != "_" and not name.startswith("__") and not PROTOCOL.fullmatch(name)


def defined_in(owner: ast.AST) -> set[str]:
    """Names that a class, or all classes of a module, give to themselves, to their slots and to ``self``."""
    found = set()
    for node in ast.walk(owner):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Assign) and any(_last_name(target) == "__slots__" for target in node.targets):
            found |= {leaf.value for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)}
    return found


def touched(source: str, classes: Classes) -> Iterator[tuple[int, str]]:
    """Line and name of each private name of a library in ``source``, as an import, an attribute or a text.

    Not of Python's own library, and not what a class of ``classes`` defines for itself: ``self._x`` is its own where
    it or a base of it does, ``other._x`` where a class of this source does.
    """
    tree = ast.parse(source)
    modules = _modules(tree)
    here = defined_in(tree)
    for node, owner, is_text in _walk(tree, None, False):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if _is_foreign(alias.name))
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name) for name in names if _is_foreign(name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if _is_self(node.value) or _is_super(node.value):
                own = classes.own(owner, inherited_only=_is_super(node.value)) if owner else set()
            else:
                own = here
            if node.attr not in own and _root(node.value) not in modules:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and not is_text and _is_a_name(node.value) and node.value not in here:
            yield node.lineno, node.value


def _walk(node: ast.AST, owner: str | None, is_text: bool) -> Iterator[tuple[ast.AST, str | None, bool]]:
    """Every node with the class around it, and whether it is part of a text."""
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.ClassDef) else owner
        text = is_text or isinstance(child, ast.JoinedStr)
        text = text or isinstance(child, ast.Call) and _last_name(child.func) in OF_STRINGS
        yield child, owner, text
        yield from _walk(child, inner, text)


def _modules(tree: ast.AST) -> set[str]:
    """Names in a source that stand for modules of Python's own library."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                (alias.asname or alias.name).partition(".")[0] for alias in node.names if not _is_library(alias.name)
            }
    return found


def _is_library(name: str) -> bool:
    return name.partition(".")[0] not in sys.stdlib_module_names | {"labkit"}


def _is_foreign(name: str) -> bool:
    return _is_library(name) and any(is_private(part) for part in name.split("."))


def _is_a_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier() and is_private(value)


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _last_name(node.func) == "super"


def _last_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
