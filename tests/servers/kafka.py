"""A real Apache Kafka for the tests: KRaft mode, one JVM, one broker, ports that the OS picks, a temporary folder.

Its jars come from `tests/pom.xml`, once, into `.cache/`. `KAFKA_BOOTSTRAP_SERVERS` points the suite at a broker that
runs already; what kills or freezes the broker is skipped then.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.certificates import Certificates, make

HERE = Path(__file__).parent.parent
POM = HERE / "pom.xml"
START_SECONDS = 60
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")

# One replica of everything; no topic but those that a test makes; a restart after `kill -9` is let in after seconds.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=500
num.io.threads=4
num.network.threads=2
"""


# Beside the listener of the tests: one with passwords and one with TLS, and permissions. `ann` may do nothing, `root`
# everything; the tests' own listener is not bound by permissions.
_SECURED = """
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller},\\
  SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_root="right" user_ann="right";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:root
"""


class NoKafka(Exception):  # noqa: N818 - a statement about this machine
    """This machine cannot run Kafka: what is missing."""


class KafkaServer:
    """One broker. `kill` is SIGKILL; `start` brings it back on the same ports and data; `pause` is SIGSTOP."""

    def __init__(self, folder: Path, jars: Path) -> None:
        self.folder = folder
        self.bootstrap = self.sasl = self.ssl = ""  # the last two where it is secured
        self._classpath = f"{jars}/*"
        self._config = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    def format(self, certificates: Certificates | None = None) -> None:
        """Pick the ports, write the properties and the cluster's id. With `certificates` it is secured."""
        broker, controller, sasl, ssl = _free_ports(4)
        self.bootstrap = f"127.0.0.1:{broker}"
        text = _PROPERTIES.format(broker=broker, controller=controller, data=self.folder / "data")
        if certificates is not None:
            self.sasl, self.ssl = f"127.0.0.1:{sasl}", f"127.0.0.1:{ssl}"
            keystore = self.folder / "keystore.pem"
            keystore.write_bytes(certificates.key.read_bytes() + certificates.certificate.read_bytes())
            text += _SECURED.format(broker=broker, controller=controller, sasl=sasl, ssl=ssl, keystore=keystore)
        self._config.write_text(text, encoding="ascii")
        cluster = "AAAAAAAAAAAAAAAAAAAAAQ"  # 16 bytes in base64url, as Kafka wants it; alone in its folder, any will do
        subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config)),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # an interrupt at the terminal ends the tests first, then the broker
            )
        self._wait()

    def kill(self) -> None:
        """SIGKILL, also for a paused one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw it, and wait until it answers."""
        self._signal(signal.SIGCONT)
        self._wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _java(self, *words: str) -> list[str]:
        return ["java", *_JVM, "-cp", self._classpath, *words]

    def _wait(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
        log = self.folder / "kafka.log"
        pytest.fail(f"Kafka did not answer in {START_SECONDS} s:\n" + log.read_text(errors="replace")[-4000:])


def kafka_jars() -> Path:
    """The folder of the jars that `tests/pom.xml` names, fetched on first use. NoKafka says what is missing."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    version = re.search(r"<kafka.version>(.+?)<", POM.read_text(encoding="utf-8"))
    assert version is not None
    jars = HERE.parent / ".cache" / f"kafka-{version[1]}"
    if jars.is_dir() and "java" not in missing:
        return jars
    if missing:
        raise NoKafka(f"{' and '.join(missing)} not found: Kafka 4 needs Java 17 and, once, Maven")
    fresh = jars.with_name(f"{jars.name}.{uuid.uuid4().hex}")
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoKafka(f"mvn could not fetch the jars: {done.stdout[-500:]}")
    with contextlib.suppress(OSError):  # another run was quicker
        fresh.rename(jars)
    shutil.rmtree(fresh, ignore_errors=True)
    return jars


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class RunningKafka:
    """A broker that somebody else runs: nothing here may stop it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def __getattr__(self, name: str) -> None:
        pytest.skip(f"KAFKA_BOOTSTRAP_SERVERS names a broker that the tests must not {name}")


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer | RunningKafka]:
    """A Kafka broker for the session. Without a JVM: a failure in CI, elsewhere a skip."""
    running = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if running:
        yield RunningKafka(running)
        return
    with _server(is_secured=False) as server:
        yield server


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[KafkaServer]:
    """A broker with listeners for passwords and TLS, and permissions; `certificates` are in its folder."""
    with _server(is_secured=True) as server:
        yield server


@contextlib.contextmanager
def _server(*, is_secured: bool) -> Iterator[KafkaServer]:
    try:
        jars = kafka_jars()
    except NoKafka as missing:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka: {missing}")
        pytest.skip(f"NO KAFKA, SO NOTHING IS KNOWN ABOUT SHIPPING: {missing}")
    folder = Path(tempfile.mkdtemp(prefix="kafka-"))
    server = KafkaServer(folder, jars)
    try:
        server.format(make(folder / "certificates") if is_secured else None)
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
