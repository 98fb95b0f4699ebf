"""The Python environment of the checks, and what kustomize makes of an overlay."""

import os
import pathlib
import subprocess
import sys

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", DEPLOY.parent / "target"))
ENVIRONMENT = TARGET / "deploy-check"
REQUIREMENTS = DEPLOY / "check" / "requirements.txt"


def into_own_environment():
    """Starts this program again in an environment that has what the checks take; makes it if needed."""
    if pathlib.Path(sys.prefix) == ENVIRONMENT:
        return
    python = ENVIRONMENT / "bin" / "python"
    wanted = REQUIREMENTS.read_text()
    installed = ENVIRONMENT / "installed.txt"
    if not installed.is_file() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
        installed.write_text(wanted)
    os.execv(python, [python, *sys.argv])


def rendered(overlay):
    """The documents of an overlay."""
    import yaml

    command = ["kubectl", "kustomize", str(overlay)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]
