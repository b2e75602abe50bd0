"""Meta-methods by name: "sess(gradcam)", "evet(sess(gradcam), weight='score')"."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import fnmatch
from typing import Any

from fastcam.methods.registry import METHODS, Method, find

from .averages import AugSmooth, Integrated, Smooth
from .base import Meta
from .evet import Evet
from .refine import Refine
from .sess import Sess

METAS: dict[str, type[Meta]] = {
    one.__name__.lower(): one for one in (AugSmooth, Evet, Integrated, Refine, Sess, Smooth)
}


def list_meta_methods(pattern: str = "*") -> list[str]:
    """Names of the meta-methods that match a pattern with wildcards; in front of a method: "sess(gradcam)".

    Args:
        pattern: e.g. "s*".

    Returns:
        Sorted names.
    """
    return sorted(fnmatch.filter(METAS, pattern.lower()))


def parse(text: str) -> str | Meta:
    """A method's name, or the meta-method that is written as "name(method, option=value)".

    Args:
        text: such as "gradcam", "sess(gradcam)" or "evet(sess(gradcam), weight='score')"; options are literals.

    Raises:
        ValueError: an unknown method, meta-method or option value, or parentheses that do not fit.
        TypeError: an option that the meta-method does not have.
    """
    text = text.strip()
    if "(" not in text and ")" not in text:
        if text.lower() in METAS:
            raise ValueError(
                f"{text} is a method of methods; write {text}(gradcam), or {METAS[text.lower()].__name__}(…)"
            )
        return find(text).name
    name, _, rest = text.partition("(")
    kind = METAS.get(name.strip().lower())
    if kind is None:
        near = difflib.get_close_matches(name.strip().lower(), METAS, n=3, cutoff=0.3) or list(METAS)
        raise ValueError(f"no meta-method named {name.strip()!r} in {text!r}; nearest: {', '.join(near)}")
    if not rest.endswith(")"):
        raise ValueError(
            f"{text!r} does not end with the parenthesis of {name.strip()}; write {name.strip().lower()}(gradcam)"
        )
    base, *settings = split(rest[:-1])
    if not base:
        raise ValueError(f"{text!r} names no method inside; write {name.strip().lower()}(gradcam)")
    options: dict[str, Any] = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        option = option.strip()
        if not equals or option not in kind.defaults():
            known = ", ".join(f"{k}={v!r}" for k, v in kind.defaults().items())
            raise TypeError(f"{name.strip().lower()} has no option {setting!r}; its options are: {known}")
        options[option] = literal(value.strip())
    return kind(parse(base), **options)


def split(text: str) -> list[str]:
    """The parts between commas that no bracket holds; "a(b, c), d" -> ["a(b, c)", "d"].

    Raises:
        ValueError: brackets that do not fit.
    """
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            break
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    if depth:
        raise ValueError(f"the brackets of {text!r} do not fit each other")
    return [part.strip() for part in parts]


def literal(text: str) -> Any:
    """A Python literal, in whose lists words may stand without quotes; "[flip, 0.5]" -> ["flip", 0.5]."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return [literal(part) for part in split(text[1:-1])] if text[:1] == "[" and text[-1:] == "]" else text


def resolve(method: str | Meta, options: dict[str, Any]) -> tuple[list[Meta], Method, dict[str, Any]]:
    """A method with its options: of the method inside where that has them, else of the outermost meta-method that has.

    Args:
        method: its name, or a meta-method.
        options: by name.

    Returns:
        The meta-methods from the outermost on, the method inside, and its resolved options.

    Raises:
        TypeError: an option that none has, or a method that is no name.
        ValueError: an unknown method, or a value that cannot be.
    """
    if not isinstance(method, (str, Meta)):
        raise TypeError(f"method must be a name or a meta-method such as Sess('gradcam'), got {method!r}")
    found = parse(method) if isinstance(method, str) else method
    if isinstance(found, str):
        return [], find(found), find(found).resolve(options)
    chain, plain = found.chain, find(found.plain)
    rest = {name: value for name, value in options.items() if name not in plain.options}
    for i, meta in enumerate(chain):
        own = {name: rest.pop(name) for name in list(rest) if name in meta.defaults()}
        chain[i] = meta.changed(own)
    if rest:
        known = ", ".join(f"{k}={v!r}" for k, v in options_of(found).items())
        raise TypeError(f"{found.name} has no option {next(iter(rest))!r}; its options are: {known}")
    for i in reversed(range(len(chain) - 1)):
        chain[i] = dataclasses.replace(chain[i], base=chain[i + 1])
    return chain, plain, plain.resolve({name: value for name, value in options.items() if name in plain.options})


def options_of(method: str | Meta) -> dict[str, Any]:
    """The options that a method takes, and the values they have otherwise; those of the method inside come first.

    Raises:
        ValueError: an unknown method.
    """
    if isinstance(method, str) and method in METHODS:
        return METHODS[method].options
    found = parse(method) if isinstance(method, str) else method
    if isinstance(found, str):
        return METHODS[found].options
    options: dict[str, Any] = {}
    for meta in reversed(found.chain):
        options |= {name: getattr(meta, name) for name in meta.defaults()}
    return options | find(found.plain).options
