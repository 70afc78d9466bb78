"""What Helm makes of the chart, held to what the sidecar and Kubernetes need of it. Run by check.sh.

Not a part of `make test`, which must not need Helm; tests/deploy holds the chart as far as it can without.
"""

import os
import subprocess
from pathlib import Path, PurePath

import pytest
import yaml

from sidecar.config.compile import load
from sidecar.config.settings import load_settings
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.supervisor.supervisor import GRACE_SECONDS

CHART = Path(__file__).parent / "metering-sidecar"
FULL_VALUES = f"--values={CHART}/ci/full-values.yaml"
KUBERNETES = "--kube-version=1.33.0"  # a Helm that was built from source believes in an old one
SECRETS = ("hush-redis", "hush-kafka", "hush-pepper")


def helm(*arguments):
    command = [os.environ["HELM"], "template", "gw", str(CHART), KUBERNETES, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Rendered:
    """All that one rendering made, by kind and name."""

    def __init__(self, *arguments):
        done = helm(*arguments)
        assert done.returncode == 0, done.stderr
        self.all = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
        self.gateway = self.one("StatefulSet")
        self.pod = self.gateway["spec"]["template"]
        self.container = self.pod["spec"]["containers"][0]

    def kind(self, kind):
        return [thing for thing in self.all if thing["kind"] == kind]

    def one(self, kind, ending=""):
        (found,) = (thing for thing in self.kind(kind) if thing["metadata"]["name"].endswith(ending))
        return found

    def named(self, kind, name):
        (found,) = (thing for thing in self.kind(kind) if thing["metadata"]["name"] == name)
        return found

    def volume(self, name):
        """The content of the ConfigMap or Secret behind a volume of the gateway."""
        (volume,) = (volume for volume in self.pod["spec"]["volumes"] if volume["name"] == name)
        if "configMap" in volume:
            return self.named("ConfigMap", volume["configMap"]["name"])["data"]
        return self.named("Secret", volume["secret"]["secretName"])["stringData"]

    def environment(self):
        """What the container finds, with a pod's name where Kubernetes puts it."""
        found = {}
        for source in self.container.get("envFrom", []):
            found |= self.named("Secret", source["secretRef"]["name"])["stringData"]
        for variable in self.container["env"]:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            found[variable["name"]] = f"{self.gateway['metadata']['name']}-0"
        return found

    def settings(self, folder):
        path = folder / "sidecar.yaml"
        path.write_text(self.volume("settings")["sidecar.yaml"])
        return load_settings(path, self.environment())


@pytest.fixture(params=["default", "full"], scope="module")
def rendered(request):
    return Rendered(*([FULL_VALUES] if request.param == "full" else []))


@pytest.fixture(scope="module")
def full():
    return Rendered(FULL_VALUES)


# --- What the sidecar needs ------------------------------------------------------------------------------------------


def test_the_settings_load_and_name_the_pod(rendered, tmp_path):
    assert rendered.settings(tmp_path).node == f"{rendered.gateway['metadata']['name']}-0"


def test_the_full_settings_hold_what_the_secret_says(full, tmp_path):
    settings = full.settings(tmp_path)
    assert settings.redis.url.startswith("rediss://:hush-redis@")
    assert settings.kafka.security.password.get_secret_value() == "hush-kafka"
    assert settings.keys.pepper.get_secret_value() == "hush-pepper"
    assert settings.journal.cap_bytes == 34_359_738_368  # Helm reads numbers as floats


def test_the_policies_load(rendered, tmp_path):
    for name, text in rendered.volume("policies").items():
        (tmp_path / name).write_text(text)
    assert load(tmp_path, set(rendered.settings(tmp_path.parent).upstreams)).policy.plans


def test_the_key_file_is_read_where_keys_are_not_in_redis(rendered, tmp_path):
    if rendered.settings(tmp_path).keys.redis:
        assert all(volume["name"] != "keys" for volume in rendered.pod["spec"]["volumes"])
        return
    (tmp_path / "keys.yaml").write_text(rendered.volume("keys")["keys.yaml"])
    assert KeyFile(tmp_path / "keys.yaml").records() == []


def test_every_path_of_the_settings_is_mounted_and_what_is_written_can_be(rendered, tmp_path):
    settings = rendered.settings(tmp_path)
    mounts = {mount["mountPath"]: mount for mount in rendered.container["volumeMounts"]}
    assert all("subPath" not in mount for mount in mounts.values())
    reads = [settings.policies, settings.keys.file]
    if settings.tls:
        reads += [settings.tls.cert, settings.tls.key, settings.kafka.security.ca]
    for path in filter(None, [*reads, settings.journal.dir, settings.sink.file]):
        around = next(mount for where, mount in mounts.items() if PurePath(path).is_relative_to(where))
        assert around.get("readOnly", False) is (path in reads), path


def test_no_mount_stands_in_another(rendered):
    paths = [PurePath(mount["mountPath"]) for mount in rendered.container["volumeMounts"]]
    assert [a for a in paths for b in paths if a != b and a.is_relative_to(b)] == []


# --- What Kubernetes needs -------------------------------------------------------------------------------------------


def test_every_mount_has_its_volume(rendered):
    claims = {claim["metadata"]["name"] for claim in rendered.gateway["spec"]["volumeClaimTemplates"]}
    volumes = claims | {volume["name"] for volume in rendered.pod["spec"]["volumes"]}
    assert {mount["name"] for mount in rendered.container["volumeMounts"]} == volumes


def test_ports_services_and_probes_are_those_of_the_settings(rendered, tmp_path):
    settings = rendered.settings(tmp_path)
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    assert ports == {"api": settings.listen[0].port, "control": settings.control.listen[0].port}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert rendered.container[probe]["httpGet"]["port"] == "control"
    targets = [port["targetPort"] for service in rendered.kind("Service") for port in service["spec"]["ports"]]
    assert sorted(targets) == ["api", "control"]


def test_the_kubelet_waits_longer_than_any_drain(rendered, tmp_path):
    pause = int(rendered.container["lifecycle"]["preStop"]["exec"]["command"][1])
    # Fails if `mul 2` goes from the chart: the shipper drains after the workers.
    drain = 2 * (rendered.settings(tmp_path).drain_seconds + GRACE_SECONDS)
    assert rendered.pod["spec"]["terminationGracePeriodSeconds"] > pause + drain


def test_services_and_budget_select_the_gateways_and_nothing_else(full):
    gateway, job = full.pod["metadata"]["labels"], full.one("Job")["spec"]["template"]["metadata"]["labels"]
    # Fails if a selector is sidecar.selector instead of sidecar.gateways.
    selectors = [service["spec"]["selector"] for service in full.kind("Service")]
    selectors += [full.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [full.gateway["spec"]["selector"]["matchLabels"]]
    assert all(selector.items() <= gateway.items() for selector in selectors)
    assert not any(selector.items() <= job.items() for selector in selectors)


def test_the_monitor_selects_the_control_service_and_no_other(full):
    selector = full.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    found = [service for service in full.kind("Service") if selector <= service["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in found] == [full.gateway["spec"]["serviceName"]]


# --- Secrets and rights ----------------------------------------------------------------------------------------------


def test_secrets_stand_in_secrets_alone(full):
    # Fails if the settings of the ConfigMap are merged with secret.values.
    others = [yaml.safe_dump(thing) for thing in full.all if thing["kind"] != "Secret"]
    assert [secret for secret in SECRETS for text in others if secret in text] == []
    assert all(secret in yaml.safe_dump(full.kind("Secret")) for secret in SECRETS)


def test_no_container_may_more_than_it_needs(rendered):
    for thing in [rendered.gateway, *rendered.kind("Job")]:
        pod = thing["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


# --- Options ---------------------------------------------------------------------------------------------------------


def test_the_monitor_and_the_hook_are_off_until_asked_for():
    assert {thing["kind"] for thing in Rendered().all} == {
        "ConfigMap",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "StatefulSet",
    }


def test_the_hook_needs_nothing_that_the_release_brings_later(full):
    # Fails if the Job reads the ConfigMap or the Secret of the release.
    brought = [thing for thing in full.all if "helm.sh/hook" in thing["metadata"].get("annotations", {})]
    job = full.one("Job")
    assert job in brought
    pod = job["spec"]["template"]["spec"]
    wanted = {source["secretRef"]["name"] for source in pod["containers"][0]["envFrom"]}
    wanted |= {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert wanted == {"gateway-kafka-init"}
    assert {thing["kind"] for thing in brought} == {"ConfigMap", "Secret", "Job"}
    settings = full.volume("settings")
    assert full.named("ConfigMap", "gateway-kafka-init")["data"] == settings


def test_settings_and_secrets_roll_the_pods_and_policies_do_not():
    def checksum(*arguments):
        return Rendered(*arguments).pod["metadata"]["annotations"]["checksum/settings"]

    before = checksum()
    assert checksum("--set=config.http.fields=50") != before
    assert checksum("--set=secret.values.SIDECAR_KEYS__PEPPER=other") != before
    assert checksum("--set=policies.pro\\.yaml=x") == before
    assert checksum("--set=keys=x") == before


def test_a_secret_of_the_operators_own_is_used_as_it_is():
    rendered = Rendered("--set=secret.existing=mine,replicas=3")
    assert rendered.container["envFrom"] == [{"secretRef": {"name": "mine"}}]
    assert [secret["metadata"]["name"] for secret in rendered.kind("Secret")] == ["gw-metering-sidecar-keys"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("replicas=2", "replicas: 2 gateways have in-memory counters"),
        ("kafkaInit.enabled=true", "needs config.kafka.bootstrap_servers"),
        ("secret.existing=a,secret.values.SIDECAR_KEYS__PEPPER=b", "secret: is one of two"),
        ("config.redis.url=redis://:hush@redis", "at '/config/redis/url'"),
        ("config.kafka.security.password=hush", "at '/config/kafka/security/password'"),
        ("config.node=a", "at '/config/node'"),
        ("secret.values.SIDECAR_REDIS_URL=a", "at '/secret/values'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_installed(wrong, said):
    done = helm(f"--set={wrong}")
    assert done.returncode == 1
    assert said in done.stderr
    assert "hush" not in done.stderr


def test_the_longest_name_still_makes_a_node_name(tmp_path):
    rendered = Rendered("--set=fullnameOverride=" + "a" * 52)
    assert len(rendered.settings(tmp_path).node) == 54
