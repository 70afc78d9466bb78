import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import redis
import yaml

from sidecar.loading.exposure import AS_ROOT
from tests.edge.ledger.events import change, event, lines, record_id, usage

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
def api():
    """The address of an upstream that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path, api):
    (tmp_path / "sidecar.yaml").write_text(SETTINGS.replace("127.0.0.1:9", api))
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "keys.yaml").chmod(0o600)
    return tmp_path


@pytest.fixture
def sidecar(tmp_path):
    """Run the command as a user does; its exit status, what it printed, what it complained about.

    The warning that it runs as root is left out: the suite may run as root.
    """

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
        return done.returncode, done.stdout, done.stderr.replace(f"warning: {AS_ROOT}\n", "")

    return run


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """The same in this process, without the second that a start takes; other threads must not print meanwhile."""
    from sidecar.cli import main  # noqa: PLC0415 - as below

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)

    def run(*arguments, **environment):
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["sidecar", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main()
        return int(left.value.code or 0), out.getvalue(), err.getvalue()

    return run


class Desk:
    """Runs `sidecar keys …` in this process, with a settings file of its own."""

    def __init__(self, folder, settings: str, monkeypatch, capsys) -> None:
        self.file = folder / "keys.yaml"
        self.config = folder / "sidecar.yaml"
        self.policies = folder / "policies.yaml"
        self.policies.write_text("plans: { free: {}, pro: {}, p: {} }\n")
        self.config.write_text(settings + "policies: policies.yaml\n")
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, command: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        from sidecar.cli import main  # noqa: PLC0415 - a broken import is this test's failure, not the collection's

        self._monkeypatch.setattr(sys, "argv", ["sidecar", "keys", command, "-c", str(self.config), *arguments])
        self._monkeypatch.setattr(sys, "stdin", stdin if isinstance(stdin, io.StringIO) else io.StringIO(stdin))
        with pytest.raises(SystemExit) as left:
            main()
        told = self._capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    @property
    def is_file(self) -> bool:
        return "file:" in self.config.read_text()

    def forget_all(self) -> None:
        if self.is_file:
            self.file.unlink()
        else:
            redis.Redis.from_url(yaml.safe_load(self.config.read_text())["redis"]["url"]).flushall()

    def listed(self) -> list[dict]:
        code, out, _ = self("list", "--json")
        assert code == 0
        return json.loads(out)


@pytest.fixture
def file_desk(tmp_path, monkeypatch, capsys):
    return Desk(tmp_path, "keys: { file: keys.yaml }\n", monkeypatch, capsys)


@pytest.fixture
def redis_desk(tmp_path, monkeypatch, capsys, redis_clean):
    settings = f"keys: {{ redis: true, pepper: salt }}\nredis: {{ url: '{redis_clean.url}' }}\n"
    return Desk(tmp_path, settings, monkeypatch, capsys)


@pytest.fixture(params=["file", "redis"])
def desk(request, tmp_path, monkeypatch, capsys):
    """The same commands over both kinds of register."""
    if request.param == "file":
        return Desk(tmp_path, "keys: { file: keys.yaml, pepper: salt }\n", monkeypatch, capsys)
    return request.getfixturevalue("redis_desk")


@pytest.fixture
def records(folder):
    """The file of the sink, with its denials beside it: two customers, a correction, and a line that is not JSON."""
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    made = [usage(number, {"requests": 1, "tokens": number}, customer=f"c{number % 2}") for number in range(1, 11)]
    path.write_bytes(lines(*made, change(11, record_id(2), {"tokens": -2}, customer="c0"), b"nonsense", made[0]))
    (path.parent / "records.denials.jsonl").write_bytes(lines(event(1, "denial", {"customer": "c1"})))
    return path
