"""Old import names lead to our modules: the very same module objects, so classes are the same under both names.

Two finders. `OLD` stands last on `sys.meta_path` and serves submodules of our packages that have no file of their
own here, through the package's table `ALIASES`: `fastcam.compat.pytorch_grad_cam.grad_cam`. `PEERS` stands first
once `fastcam.compat.patch` has put it there, and serves the peers' own names, whether or not they are installed:
`pytorch_grad_cam.grad_cam`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

HOME = __name__.rpartition(".")[0]
ROOTS = {name: f"{HOME}.{name}" for name in ("pytorch_grad_cam", "torchcam")}


class Alias(Loader):
    """Puts a module of ours under another name into `sys.modules`.

    Args:
        target: our module's own name.
    """

    def __init__(self, target: str) -> None:
        self.target = target

    def exec_module(self, module: ModuleType) -> None:
        """Imports our module and lets it take the place of the empty one made for the other name."""
        sys.modules[module.__name__] = importlib.import_module(self.target)


class Old(MetaPathFinder):
    """Finds submodules of our packages by the names that the peers have for them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec that leads to the module that `ALIASES` of the package names, or None."""
        for root in ROOTS.values():
            if fullname.startswith(f"{root}."):
                aliases: Mapping[str, str] = getattr(sys.modules.get(root), "ALIASES", {})
                found = aliases.get(fullname.removeprefix(f"{root}."))
                return None if found is None else ModuleSpec(fullname, Alias(f"{root}.{found}"))
        return None


class Peers(MetaPathFinder):
    """Finds the peers' packages and all below them in ours, before the installed ones are looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec that leads to our module of the same name below `fastcam.compat`, or None.

        A module of ours that is imported by its own name, perhaps by another of ours, gets the peer's name as well:
        else the peer's would be missing in `sys.modules` where the peer itself would have loaded it.
        """
        if fullname.startswith(tuple(f"{ours}." for ours in ROOTS.values())):
            return _known_as(fullname.removeprefix(f"{HOME}."), _after(self, fullname, path))
        root, dot, rest = fullname.partition(".")
        if root not in ROOTS:
            return None
        found = importlib.util.find_spec(f"{ROOTS[root]}{dot}{rest}")
        if found is None:
            return None
        package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, Alias(found.name), origin=found.origin, is_package=package)


def _after(finder: MetaPathFinder, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What the finders behind one find."""
    later = sys.meta_path[sys.meta_path.index(finder) + 1 :]
    return next(filter(None, (other.find_spec(fullname, path) for other in later)), None)


def _known_as(name: str, spec: ModuleSpec | None) -> ModuleSpec | None:
    """The spec, whose module will stand in `sys.modules` under another name too once it has run."""
    if spec is not None and spec.loader is not None:
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            sys.modules[name] = sys.modules[module.__name__]

        spec.loader.exec_module = exec_module
    return spec


OLD, PEERS = Old(), Peers()


def serve_old_names() -> None:
    """Puts `OLD` last among the finders, once."""
    if OLD not in sys.meta_path:
        sys.meta_path.append(OLD)


def redirect() -> None:
    """Puts `PEERS` first among the finders: from now on the peers' names lead to our modules.

    Raises:
        ImportError: a peer itself was imported before; classes of both would be mixed.
    """
    real = sorted(root for root in ROOTS if root in sys.modules and not redirected(root))
    if real:
        raise ImportError(
            f"{' and '.join(real)} was imported before fastcam.compat.patch, and its classes are in use; "
            "import fastcam.compat.patch before it, on the first line of the program, or run the unchanged program "
            "by `fastcam accelerate`"
        )
    if PEERS not in sys.meta_path:
        sys.meta_path.insert(0, PEERS)
    for name, module in list(sys.modules.items()):
        if name.startswith(tuple(ROOTS.values())):
            sys.modules[name.removeprefix(f"{HOME}.")] = module


def give_back() -> None:
    """Takes `PEERS` away, and the peers' names out of `sys.modules`: they lead to the installed packages again."""
    if PEERS in sys.meta_path:
        sys.meta_path.remove(PEERS)
    for name in list(sys.modules):
        root = name.partition(".")[0]
        if root in ROOTS and redirected(name):
            del sys.modules[name]


def redirected(name: str) -> bool:
    """Whether an imported module of a peer's name is one of ours."""
    return getattr(sys.modules[name], "__name__", "").startswith(f"{HOME}.")
