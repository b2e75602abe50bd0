"""`fastcam accelerate` runs a program as Python does, but for where its imports lead."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("typer")

SAYS = """
import json, sys
import torchcam.utils
from fastcam.compat import strict_compat

print(json.dumps({
    "argv": sys.argv, "name": __name__, "file": globals().get("__file__"), "path": sys.path[0],
    "spec": __spec__ and __spec__.name, "torchcam": torchcam.utils.__name__, "strict": strict_compat(),
}))
"""


def call(folder, *words: str, accelerated: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-m", "fastcam", "accelerate"] if accelerated else []), *words]
    usual = {**os.environ, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=usual, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [("says.py", "--strict", "-m", "a b"), ("-m", "package.says", "--help"), ("-m", "package")]
)
def test_everything_but_the_import_is_as_without(tmp_path, words):
    pytest.importorskip("torchcam")
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "package").mkdir()
    for name in ("__init__", "__main__", "says"):
        (tmp_path / "package" / f"{name}.py").write_text("" if name == "__init__" else SAYS)
    mine, plain = (call(tmp_path, *words, accelerated=accelerated) for accelerated in (True, False))
    assert (mine.returncode, plain.returncode) == (0, 0), mine.stderr + plain.stderr
    said, expected = json.loads(mine.stdout), json.loads(plain.stdout)
    assert said.pop("torchcam") == "fastcam.compat.torchcam.utils"
    assert expected.pop("torchcam") == "torchcam.utils"
    assert said == expected
    assert said["argv"][1:] == list(words[1:] if words[0] != "-m" else words[2:])
    assert said["strict"] is False


def test_strict_is_for_the_program(tmp_path):
    (tmp_path / "says.py").write_text(SAYS)
    done = call(tmp_path, "--strict", "says.py", "x")
    assert json.loads(done.stdout)["strict"] is True, done.stderr
    assert json.loads(done.stdout)["argv"] == ["says.py", "x"]


def test_exit_codes_and_errors_are_the_programs(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(7)\n")
    done = call(tmp_path, "ends.py")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    (tmp_path / "fails.py").write_text("import torchcam\n1 / 0\n")
    done = call(tmp_path, "fails.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert 'fails.py", line 2' in done.stderr


def test_processes_that_the_program_starts_are_redirected_too(tmp_path):
    (tmp_path / "starts.py").write_text(
        "import multiprocessing, subprocess, sys\n"
        "def name():\n"
        "    import torchcam.utils\n"
        "    return torchcam.utils.__name__\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(name))\n"
        "    code = 'import torchcam.utils; print(torchcam.utils.__name__)'\n"
        "    print(subprocess.check_output([sys.executable, '-c', code], text=True).strip())\n"
    )
    done = call(tmp_path, "starts.py")
    assert done.stdout.split() == ["fastcam.compat.torchcam.utils"] * 2, done.stderr


def test_another_sitecustomize_still_runs(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = 'yes'\n")
    (tmp_path / "asks.py").write_text("import sitecustomize\nprint(customized, sitecustomize.__file__)\n")
    done = call(tmp_path, "asks.py", PYTHONPATH=str(tmp_path / "site"))
    assert done.stdout.split() == ["yes", str(tmp_path / "site" / "sitecustomize.py")], done.stderr


def test_bad_input(tmp_path):
    done = call(tmp_path, "nowhere.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no script 'nowhere.py'; give a Python file")
    assert call(tmp_path).returncode == 2
    assert call(tmp_path, "--unknown", "x.py").returncode == 2
    done = call(tmp_path, "-m", "no_such_module")
    assert done.returncode == 1
    assert "No module named no_such_module" in done.stderr
