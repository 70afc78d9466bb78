import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli import COMMANDS, FAULTS_SHOWN, HIDDEN


def test_help_names_every_command_and_says_what_to_do_next(sidecar):
    status, out, _ = sidecar("--help")
    assert status == 0
    assert all(f"  {name} " in out for name in COMMANDS)
    assert not any(name in out for name in HIDDEN)
    assert "sidecar demo" in out


def test_help_imports_nothing_that_it_does_not_use(sidecar, monkeypatch):
    # Fails if a command's module is imported at the head of sidecar.cli.
    _, _, imported = sidecar("--help", PYTHONPROFILEIMPORTTIME="1")
    assert "click" in imported
    for heavy in ("aiohttp", "pydantic", "aiokafka", "redis", "rich.console", "uvloop"):
        assert f" {heavy}\n" not in imported


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_says_what_to_do_next(sidecar, name):
    status, out, _ = sidecar(name, "--help")
    assert status == 0
    assert out.startswith(f"Usage: sidecar {name}")
    assert "Next: " in out or "Commands:" in out


def test_the_version_names_the_parser_that_reads_what_clients_send(sidecar):
    status, out, _ = sidecar("--version")
    assert status == 0
    assert out.startswith("sidecar 0.")
    assert "httptools 0." in out
    assert "llhttp" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frob"], "No such command 'frob'"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["keys", "nwe"], "No such command 'nwe'. Did you mean 'new'?"),
        (["keys", "list", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["check", "--frob"], "No such option '--frob'"),
        (["schema", "nothing"], "'nothing' is not one of"),
        (["kafka", "init"], "kafka.bootstrap_servers is not set"),
        (["check", "-c", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what(sidecar, arguments, complaint):
    status, out, err = sidecar(*arguments)
    assert (status, out) == (2, "")
    assert complaint in err


@pytest.mark.parametrize("name", ["check", "run"])
def test_a_wrong_setting_is_one_line_with_its_place(sidecar, folder, name):
    with (folder / "sidecar.yaml").open("a") as file:
        file.write("workerz: 2\ndrain_seconds: -1\n")
    status, out, err = sidecar(name, "-c", "sidecar.yaml")
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{'sidecar.yaml'}:7: workerz: ") or "sidecar.yaml:7" in lines[0]
    assert "sidecar.yaml:8" in lines[1]


def test_a_wrong_value_from_the_environment_names_the_variable(sidecar, folder):
    status, _, err = sidecar("check", "-c", "sidecar.yaml", SIDECAR_WORKERS="none")
    assert status == 2
    assert err.startswith("SIDECAR_WORKERS: workers: ")


def test_all_faults_of_policies_and_keys_come_at_once(sidecar, folder):
    (folder / "p.yaml").write_text("plans: { free: { limits: [{ id: a, rate: 5/fortnight }] } }\n")
    (folder / "keys.yaml").write_text("keys:\n  - { id: k }\n")
    status, _, err = sidecar("check", "-c", "sidecar.yaml")
    assert status == 2
    assert "p.yaml:1: plans.free.limits[0]" in err
    assert "keys.yaml:2: " in err


def test_of_very_many_faults_the_first_are_shown_and_the_others_counted(sidecar, folder):
    (folder / "keys.yaml").write_text("keys:\n" + "  - { id: k }\n" * 1_000)
    status, _, err = sidecar("check", "-c", "sidecar.yaml")
    lines = err.splitlines()
    assert status == 2
    assert len(lines) == FAULTS_SHOWN + 1
    assert "keys.yaml:2: " in lines[0]
    # Fails if an operator takes the first faults for all of them.
    assert re.fullmatch(r"and \d,\d{3} more faults", lines[-1])


# Fails if the defaults are taken although a settings file is there: counters would be in memory, in silence.
@pytest.mark.parametrize(
    "arguments",
    [
        ["check"], ["run"], ["ship"], ["migrate"], ["kafka", "init"], ["counters", "accept-loss"], ["keys", "list"],
        ["records", "count"], ["wallet", "show", "--customer", "c", "--unit", "usd"],
    ],
)  # fmt: skip
def test_sidecar_yaml_of_the_working_folder_is_taken(sidecar, folder, arguments):
    (folder / "sidecar.yaml").write_text("workerz: 2\n")
    (folder / "other.yaml").write_text("workorz: 2\n")
    assert sidecar(*arguments)[2].startswith("sidecar.yaml:1: workerz: ")
    assert sidecar(*arguments, "-c", "other.yaml")[2].startswith("other.yaml:1: workorz: ")
    assert sidecar(*arguments, SIDECAR_CONFIG="other.yaml")[2].startswith("other.yaml:1: workorz: ")


NONE = "No such file or directory: create it, or correct the path"


KEYS, POLICIES = ("keys.yaml", "6: keys.file"), ("p.yaml", "5: policies")


# Fails if a command reads a file without its setting: an operator would have to guess which one asks for it.
@pytest.mark.parametrize(
    ("missing", "command"),
    [
        *((KEYS, command) for command in ("check", "run", "keys list")),
        *((POLICIES, command) for command in ("check", "run", "wallet show --customer c --unit usd")),
    ],
    ids=str,
)
def test_a_missing_document_is_named_with_its_setting(sidecar, folder, missing, command):
    name, place = missing
    (folder / name).unlink()
    status, _, err = sidecar(*command.split(), "-c", "sidecar.yaml")
    assert status == 2
    assert err.splitlines()[-1] == f"sidecar.yaml:{place}: {folder}/{name} cannot be read: {NONE}"


@pytest.mark.parametrize("command", [["check"], ["run"], ["kafka", "init"], ["records", "tail"]])
def test_a_missing_authority_is_named_with_its_setting(sidecar, folder, command):
    kafka = "kafka: { bootstrap_servers: 'h:1', security: { protocol: SSL, ca: no.pem } }"
    with (folder / "sidecar.yaml").open("a") as file:
        file.write(f"{kafka}\n")
    status, _, err = sidecar(*command, "-c", "sidecar.yaml")
    assert status == 2
    assert err.splitlines()[-1] == f"sidecar.yaml:7: kafka.security.ca: {folder}/no.pem cannot be read: {NONE}"


# Fails if a key that nobody has is registered without a word, or if the remedy is left out.
@pytest.mark.parametrize("command", [["new", "--customer", "c", "--plan", "free", "--id", "k_1"], ["import", "k.csv"]])
def test_a_made_key_that_cannot_be_printed_is_named_and_without_an_output_nothing_is_registered(folder, command):
    (folder / "k.csv").write_text("id,customer,plan\nk_1,c,free\n")
    options = ["--make-keys"] if command[0] == "import" else []
    run = [sys.executable, "-m", "sidecar", "keys", *command, *options]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *run]
    done = subprocess.run(closed, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, "standard output is closed" in done.stderr) == (2, True)
    assert (folder / "keys.yaml").read_text() == "keys: []\n"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(run, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert "registered, but not printed (No space left on device): k_1; nobody has these keys" in done.stderr
    assert "Traceback" not in done.stderr
    assert "k_1" in (folder / "keys.yaml").read_text()
