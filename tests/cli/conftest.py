import os
import subprocess
import sys

import pytest

SETTINGS = """\
listen: 127.0.0.1:0
control: { listen: 127.0.0.1:0 }
upstreams:
  default: { urls: ["http://127.0.0.1:9"] }
policies: p.yaml
keys: { file: keys.yaml }
"""
POLICY = """\
plans:
  free:
    limits:
      - { id: burst, meter: requests, rate: 5/s, burst: 10, scope: key }
      - { id: monthly, meter: requests, quota: 10000/month, scope: customer }
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sidecar.yaml").write_text(SETTINGS)
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    return tmp_path


@pytest.fixture
def sidecar(tmp_path):
    """Run the command as a user does; its exit status, what it printed, what it complained about."""

    def run(*arguments, **environment):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *arguments],
            cwd=tmp_path,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run
