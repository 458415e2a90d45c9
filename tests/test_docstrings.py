"""Docstrings keep their word: parameters are those of the signature, and arrays say their shape."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

PACKAGE = Path(__file__).parents[1] / "debugnet"
MODULES = sorted(PACKAGE.rglob("*.py"))
SHAPE = re.compile(r"\([^()]*\w+,[^()]*\)|\(\.\.\.[^()]*\)|shape|scalar", re.IGNORECASE)
ARRAY = re.compile(r"^(?!.*(Mapping|dict|Sequence|list|Callable)).*\b(ndarray|Tensor)\b")


def public_functions(tree: ast.Module):
    """Yield (qualified name, function, class or None) of what a user may call."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, None
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member, node


def parameters(function: ast.FunctionDef) -> list[str]:
    args = function.args
    names = [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg] if a]
    return [n for n in names if n not in ("self", "cls")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    wrong = []
    for name, function, owner in public_functions(tree):
        text = ast.get_docstring(function)
        decorators = {ast.unparse(d) for d in function.decorator_list}
        if not text:
            if not decorators & {"override", "typing.overload", "overload"} and not (owner and owner.bases):
                wrong.append(f"{name} has no docstring")
            continue
        documented = NumpyDocString(text)["Parameters"]
        listed = [n.strip().lstrip("*") for p in documented for n in p.name.split(",") if n.strip() != "..."]
        known = parameters(function)
        if listed:
            wrong += [f"{name} documents '{n}', which it does not take" for n in listed if n not in known]
            wrong += [f"{name} does not document '{n}'" for n in known if n not in listed]
        arrays = {a.arg for a in function.args.args if a.annotation and ARRAY.search(ast.unparse(a.annotation))}
        wrong += [
            f"{name}: '{p.name}' is an array of no documented shape"
            for p in documented
            if arrays & set(re.split(r", *", p.name)) and not SHAPE.search(" ".join([p.type, *p.desc]))
        ]
    assert not wrong, "\n".join(wrong)
