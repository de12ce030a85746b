"""New virtual environments that see what is installed here, so that nothing large is installed again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

SCRIPT = """#!{}/bin/python
from semcodec.cli import main

if __name__ == "__main__":
    main()
"""


def new_environment(folder: Path, *, editable: bool = True) -> Path:
    """A virtual environment; returns its ``bin``.

    editable: whether semcodec is there too, as it is installed here, rather than its dependencies alone.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    inside = Path(sysconfig.get_path("purelib", "venv", scheme))
    here = list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    # A path in a .pth file is searched for modules; its own .pth files, the editable installs, take addsitedir.
    lines = [f"import site; site.addsitedir({path!r})" if editable else path for path in here]
    (inside / "installed-around.pth").write_text("\n".join(lines) + "\n")
    if editable:  # its command has the path of the other Python in its first line
        command = folder / "bin" / "semcodec"
        command.write_text(SCRIPT.format(folder))
        command.chmod(0o755)
    return folder / "bin"


def install(environment: Path, *what: Path, options: Sequence[str] = ("--no-deps", "--no-build-isolation")) -> None:
    """``pip install`` into a new environment."""
    run(["python", "-m", "pip", "install", "-q", *options, *map(str, what)], environment, environment)


def run(command: Sequence[str], environment: Path, folder: Path) -> str:
    """Run a command in the environment and folder; returns what it prints. Fails with all that it said."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PATH": f"{environment}{os.pathsep}{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    program = shutil.which(command[0], path=variables["PATH"]) or command[0]
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, cwd=folder, env=variables)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
