"""The peers' import names lead to our modules: what runs in a process of its own is how a program meets it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from fastcam.compat import names, strict_compat


def run(code: str, **more) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def ours(monkeypatch):
    """A package of ours with one alias, in the place of the real one."""
    package = ModuleType("fastcam.compat.torchcam")
    package.__path__ = []
    package.ALIASES = {"old": "new", "deep.old": "new"}
    new = ModuleType("fastcam.compat.torchcam.new")
    new.Class = type("Class", (), {})
    deep = ModuleType("fastcam.compat.torchcam.deep")
    deep.__path__ = []
    import fastcam.compat as parent

    monkeypatch.setattr(parent, "torchcam", package, raising=False)
    for name in [name for name in sys.modules if name.startswith(("fastcam.compat.torchcam", "torchcam"))]:
        monkeypatch.delitem(sys.modules, name)
    for module in (package, new, deep):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield package
    for name in ("old", "deep.old"):
        sys.modules.pop(f"fastcam.compat.torchcam.{name}", None)


def test_an_old_submodule_is_the_new_one(ours):
    importlib.import_module("fastcam.compat.torchcam.deep.old")
    importlib.import_module("fastcam.compat.torchcam.old")
    new = sys.modules["fastcam.compat.torchcam.new"]
    assert sys.modules["fastcam.compat.torchcam.old"] is new
    assert sys.modules["fastcam.compat.torchcam.deep.old"] is new
    assert ours.old is new
    assert new.__name__ == "fastcam.compat.torchcam.new"


def test_a_name_that_is_nowhere_is_missing(ours):
    with pytest.raises(ModuleNotFoundError, match=r"fastcam\.compat\.torchcam\.older"):
        importlib.import_module("fastcam.compat.torchcam.older")


def test_the_finder_is_there_once():
    names.serve_old_names()
    assert sys.meta_path.count(names.OLD) == 1
    assert names.PEERS not in sys.meta_path


def test_patch_redirects_and_gives_back():
    run("""
        import sys, importlib.metadata
        import fastcam.compat.patch as patch
        assert "torch" not in sys.modules, "the switch costs no import"
        import torchcam.utils
        from torchcam.utils import overlay_mask
        import fastcam.compat.torchcam as ours
        assert sys.modules["torchcam"] is ours
        assert torchcam.utils is ours.utils is sys.modules["torchcam.utils"]
        assert torchcam.utils.__name__ == "fastcam.compat.torchcam.utils"
        assert overlay_mask.__module__ == "fastcam.compat.torchcam.utils"
        assert importlib.metadata.version("torchcam")
        patch.install()
        assert sys.meta_path.count(patch.names.PEERS) == 1
        try:
            import torchcam.no_such_module
        except ModuleNotFoundError as error:
            assert "torchcam.no_such_module" in str(error)
        else:
            raise SystemExit("a module that neither has was found")
        patch.uninstall()
        assert "torchcam" not in sys.modules and "torchcam.utils" not in sys.modules
        assert sys.modules["fastcam.compat.torchcam"] is ours
        patch.uninstall()
        patch.install()
        import torchcam as again
        assert again is ours
    """)


def test_what_was_imported_by_our_name_has_the_peers_too():
    run("""
        import sys
        import fastcam.compat.torchcam.utils as before
        assert "torchcam.utils" not in sys.modules
        import fastcam.compat.patch
        assert sys.modules["torchcam.utils"] is before
        assert "torchcam.metrics" not in sys.modules
        import fastcam.compat.torchcam.metrics as after
        assert sys.modules["torchcam.metrics"] is after
        assert after.__spec__.name == "fastcam.compat.torchcam.metrics" and after.__loader__.get_source(after.__name__)
        import torchcam.metrics
        assert torchcam.metrics is after
    """)


def test_the_peer_comes_back_after_uninstall():
    pytest.importorskip("torchcam")
    run("""
        import fastcam.compat.patch as patch
        import torchcam.utils
        patch.uninstall()
        import torchcam.utils as real
        assert real.__name__ == "torchcam.utils" and "fastcam" not in real.__file__, real.__file__
        try:
            patch.install()
        except ImportError as error:
            assert "torchcam was imported before fastcam.compat.patch" in str(error) and "accelerate" in str(error)
        else:
            raise SystemExit("both at once")
    """)


def test_works_where_the_peer_is_not_installed():
    run("""
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"torchcam", "pytorch_grad_cam"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Absent())
        try:
            import torchcam
        except ModuleNotFoundError:
            pass
        else:
            raise SystemExit("the stand-in does not work")
        import fastcam.compat.patch
        from torchcam.utils import overlay_mask
        assert overlay_mask.__module__ == "fastcam.compat.torchcam.utils"
    """)


def test_no_folder_of_a_checkout_shadows_ours(tmp_path):
    (tmp_path / "torchcam").mkdir()
    (tmp_path / "torchcam" / "__init__.py").write_text("raise SystemExit('the folder, not fastcam')\n")
    run("import fastcam.compat.patch, torchcam; assert torchcam.__name__ == 'fastcam.compat.torchcam'", cwd=tmp_path)


def test_strict_is_off_until_asked_for():
    assert strict_compat() is False
    try:
        assert strict_compat(True) is True
        assert strict_compat(None) is True
    finally:
        assert strict_compat(False) is False
    with pytest.raises(TypeError, match="not 1"):
        strict_compat(1)
