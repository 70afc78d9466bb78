import os
import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize("listen", ["listen", "control"])
def test_a_port_that_is_taken_is_one_line_and_never_shared_in_silence(sidecar, folder, listen):
    # Fails if the port is not tried without SO_REUSEPORT first: both would serve half of the connections.
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        variable = "SIDECAR_LISTEN" if listen == "listen" else "SIDECAR_CONTROL__LISTEN"
        status, _, err = sidecar("run", "-c", "sidecar.yaml", **{variable: f"127.0.0.1:{port}"})
    assert status == 1
    assert err.splitlines()[-1].startswith(f"sidecar: {listen}")
    assert f"127.0.0.1:{port} cannot be bound: Address already in use" in err


def test_a_journal_that_cannot_be_written_is_one_line(sidecar, folder):
    (folder / "data").write_text("a file")
    status, _, err = sidecar("run", "-c", "sidecar.yaml")
    assert status == 1
    assert err.startswith("sidecar: sidecar.yaml:1: journal.dir: ")
    assert "cannot be written: Not a directory" in err


def test_a_key_file_that_others_can_read_is_a_warning_in_the_log(folder):
    # Fails if run leaves the warnings of exposure.py out.
    (folder / "keys.yaml").chmod(0o644)
    ports = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_CONTROL__LISTEN": "127.0.0.1:0"}
    command = [sys.executable, "-m", "sidecar", "run", "-c", "sidecar.yaml"]
    with subprocess.Popen(command, cwd=folder, env=os.environ | ports, stderr=subprocess.PIPE, text=True) as node:
        try:
            lines = iter(node.stderr.readline, "")
            assert any(f"can read it: chmod o= {folder}/keys.yaml" in line for line in lines)
        finally:
            node.terminate()
            node.communicate(timeout=30)
