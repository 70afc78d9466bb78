"""The chart in deploy/helm/metering-sidecar, as far as it can be held to the sidecar without Helm.

What Helm makes of it is looked at by deploy/helm/check.sh.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from sidecar.cli.kafka import init
from sidecar.config.compile import load as load_documents
from sidecar.config.settings import load_settings
from sidecar.control.listener import application
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.supervisor.supervisor import GRACE_SECONDS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/metering-sidecar"
TEMPLATES = "".join(path.read_text() for path in sorted(CHART.glob("templates/*")))
CHART_YAML = yaml.safe_load((CHART / "Chart.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def merged(below, above):
    """What Helm makes of two values: maps are merged, null takes away, everything else replaces."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = {name: merged(below.get(name), value) for name, value in above.items()}
    return {name: value for name, value in (below | both).items() if value is not None}


DEFAULT = yaml.safe_load((CHART / "values.yaml").read_text())
FULL = merged(DEFAULT, yaml.safe_load((CHART / "ci/full-values.yaml").read_text()))
BOTH = pytest.mark.parametrize("values", [DEFAULT, FULL], ids=["default", "full"])


def settings_of(values, folder, env=None):
    path = folder / "sidecar.yaml"
    path.write_text(yaml.safe_dump(values["config"]))
    return load_settings(path, {"SIDECAR_NODE": "gateway-0"} | values["secret"]["values"] | (env or {}))


def faults(values):
    return [error.json_path for error in Draft7Validator(SCHEMA).iter_errors(values)]


# --- Values and their schema -----------------------------------------------------------------------------------------


@BOTH
def test_the_values_are_what_the_schema_says(values):
    Draft7Validator.check_schema(SCHEMA)
    assert faults(values) == []


def test_the_schema_and_the_values_name_the_same_things():
    # Fails if a value is added to values.yaml alone, or a property to the schema alone.
    assert set(SCHEMA["properties"]) - {"global"} == set(DEFAULT)
    for name, part in SCHEMA["properties"].items():
        if name not in ("config", "global") and "properties" in part:
            assert set(part["properties"]) == set(DEFAULT[name]), name


def test_every_value_that_a_template_reads_is_there_and_every_value_is_read():
    # Fails if `.Values.volume.size` is written `.Values.volume.siez`.
    paths = {tuple(path.split(".")) for path in re.findall(r"\.Values\.([A-Za-z_]+(?:\.[A-Za-z_]+)*)", TEMPLATES)}
    assert {path[0] for path in paths} == set(DEFAULT)
    for path in paths:
        here = FULL
        for part in path:
            assert part in here, path
            here = here[part]


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("$.config.redis.url", {"config": {"redis": {"url": "redis://:hush@redis:6379"}}}),
        ("$.config.kafka.security.password", {"config": {"kafka": {"security": {"password": "hush"}}}}),
        ("$.config.keys.pepper", {"config": {"keys": {"pepper": "hush"}}}),
        ("$.config.node", {"config": {"node": "one-for-all"}}),
        ("$.config.policies", {"config": {"policies": "policies/"}}),
        ("$.config.journal.dir", {"config": {"journal": {"dir": "/data/journal"}}}),
        ("$.config.keys.file", {"config": {"keys": {"file": "keys.yaml"}}}),
        ("$.config.drain", {"config": {"drain": "60s"}}),
        ("$.config.listen", {"config": {"listen": "127.0.0.1:8080"}}),
        ("$.config.listen", {"config": {"listen": [":8080"]}}),
        ("$.config.control.listen", {"config": {"control": {"listen": "127.0.0.1:8081"}}}),
        ("$.secret.values", {"secret": {"values": {"SIDECAR_REDIS_URL": "redis://redis"}}}),
        ("$.policies", {"policies": {".hidden.yaml": "plans: {}"}}),
        ("$", {"replicaCount": 3}),
    ],
)
def test_what_has_its_place_elsewhere_or_cannot_work_is_refused_by_name(where, wrong):
    # Fails if the property that is named loses its rule in the schema.
    assert faults(merged(DEFAULT, wrong)) == [where]


# --- What the sidecar makes of them ----------------------------------------------------------------------------------


@BOTH
def test_the_settings_load_with_the_secret_environment(values, tmp_path):
    settings = settings_of(values, tmp_path)
    assert settings.node == "gateway-0"
    assert settings.listen[0].port != settings.control.listen[0].port


def test_a_pod_serves_the_families_of_its_cluster(tmp_path):
    # Mutation: 0.0.0.0 in values.yaml; the kubelet's probes come by IPv6 where that is the pod's first family.
    settings = settings_of(DEFAULT, tmp_path)
    assert [each.host for each in (*settings.listen, *settings.control.listen)] == ["", ""]


@BOTH
def test_the_policies_load(values, tmp_path):
    for name, text in values["policies"].items():
        (tmp_path / name).write_text(text)
    assert load_documents(tmp_path, set(values["config"]["upstreams"])).policy.plans


def test_the_key_file_is_one(tmp_path):
    (tmp_path / "keys.yaml").write_text(DEFAULT["keys"])
    assert KeyFile(tmp_path / "keys.yaml").records() == []


@pytest.mark.parametrize("name", SCHEMA["properties"]["secret"]["properties"]["values"]["properties"])
def test_every_secret_variable_is_a_setting(name, tmp_path):
    # Fails if the schema says SIDECAR_KAFKA__PASSWORD: load_settings refuses what is no setting.
    settings_of(FULL, tmp_path, {name: "redis://other:6379/0"})
    assert name in (CHART / "values.yaml").read_text()


def test_every_variable_that_the_templates_set_is_a_setting(tmp_path):
    names = set(re.findall(r"name: (SIDECAR_[A-Z_]+)", TEMPLATES))
    assert names == {"SIDECAR_NODE"}
    assert settings_of(DEFAULT, tmp_path).node == "gateway-0"


@BOTH
def test_the_volume_holds_more_than_the_journal_may(values, tmp_path):
    number, unit = re.fullmatch(r"(\d+)(Gi)", values["volume"]["size"]).groups()
    assert unit == "Gi"
    assert int(number) << 30 > settings_of(values, tmp_path).journal.cap_bytes


def test_the_grace_period_is_made_of_the_bounds_of_a_drain():
    # Workers, then the shipper: each has drain_seconds and the supervisor's grace. Fails if GRACE_SECONDS becomes 6.
    assert f"mul 2 (add (int .Values.config.drain_seconds) {GRACE_SECONDS})" in TEMPLATES


def test_the_probes_and_the_scrape_ask_for_what_the_control_listener_has():
    paths = set(re.findall(r"path: (/[a-z]+)", TEMPLATES))
    served = {resource.canonical for resource in application(None).router.resources()}
    assert paths == {"/livez", "/readyz", "/metrics"}
    assert paths <= served


def test_the_hook_calls_kafka_init_with_options_that_it_has():
    known = {option for parameter in init.params for option in parameter.opts}
    given = set(re.findall(r"- (--[a-z]+)=", TEMPLATES))
    assert given == {"--config", "--partitions", "--replicas"}
    assert given <= known


# --- The chart and the image -----------------------------------------------------------------------------------------


def test_the_chart_is_of_this_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert CHART_YAML["appVersion"] == version
    assert CHART_YAML["name"] == CHART.name


def test_nothing_is_mounted_in_a_way_that_the_kubelet_never_renews():
    # Fails if a mount says subPath: an edited ConfigMap would not reach it.
    assert "subPath:" not in TEMPLATES


def test_the_image_runs_as_the_user_of_the_chart_and_offers_its_ports(tmp_path):
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert f"runAsUser: {user[1]}\n" in TEMPLATES
    assert f"runAsGroup: {user[2]}\n" in TEMPLATES
    settings = settings_of(DEFAULT, tmp_path)
    assert f"EXPOSE {settings.listen[0].port} {settings.control.listen[0].port}\n" in dockerfile


def test_the_image_is_built_from_files_that_are_there_and_has_all_that_the_build_reads():
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    copied = " ".join(sources).split()
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # Fails if LICENSE, README.md or the build's hook is no longer copied: hatchling reads them all.
    built_from = {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "sidecar"}
    assert set(copied) == built_from | {"requirements/build.txt", "requirements/run.txt"}
