"""Redis and Kafka for those forms that need one: real ones, of the run's own, on the load's core, and in no figure but
that of their own column.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

import redis

from benchmarks.stage import LOAD_CORE, RunFailed, Stage, free_port

HOME = Path(__file__).resolve().parent.parent / ".cache"
POM = Path(__file__).with_name("kafka-pom.xml")
KAFKA = "kafka-3.9.1"  # the last line that takes the produce requests that the Lua clients send (KIP-896)
KAFKA_SECONDS = 60
TOPIC = "usage"
JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={dir}/kafka-data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
num.io.threads=2
num.network.threads=1
"""
ANY_CLUSTER = "AAAAAAAAAAAAAAAAAAAAAQ"  # 16 bytes in base64url, as Kafka wants it


def start_redis(stage: Stage, port: int) -> int:
    """A Redis that writes nothing to disk; its pid."""
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(stage.dir)]
    pid = stage.start("redis", ["redis-server", *flags], LOAD_CORE)

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    stage.until("Redis to answer", answers)
    return pid


@cache
def kafka_missing() -> str:
    """ "" where Kafka can be started here, its jars fetched at the first need; else why not."""
    if lacking := [tool for tool in ("java", "mvn") if not shutil.which(tool)]:
        return f"{' and '.join(lacking)} not on this machine: apt-get install openjdk-17-jre-headless maven"
    if (HOME / KAFKA).is_dir():
        return ""
    fresh = HOME / f"{KAFKA}.fresh"
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return f"mvn could not fetch {KAFKA}: {done.stdout[-300:]}"
    with contextlib.suppress(OSError):  # another run was quicker
        fresh.rename(HOME / KAFKA)
    shutil.rmtree(fresh, ignore_errors=True)
    return ""


def start_kafka(stage: Stage) -> tuple[int, int]:
    """One broker with one topic, TOPIC, of four partitions; its pid and port."""
    broker, controller = free_port(), free_port()
    config = stage.write("kafka.properties", PROPERTIES.format(broker=broker, controller=controller, dir=stage.dir))
    java = ["java", *JVM, "-cp", f"{HOME / KAFKA}/*"]
    formatted = [*java, "kafka.tools.StorageTool", "format", "-t", ANY_CLUSTER, "-c", str(config)]
    subprocess.run(formatted, check=True, capture_output=True, timeout=KAFKA_SECONDS)
    pid = stage.start("kafka", [*java, "kafka.Kafka", str(config)], LOAD_CORE)
    stage.until("Kafka to have its topic", lambda: _has_topic(broker), KAFKA_SECONDS)
    return pid, broker


def _has_topic(broker: int) -> bool:
    from confluent_kafka import KafkaException  # noqa: PLC0415 - who measures without Kafka needs no client of it
    from confluent_kafka.admin import AdminClient, NewTopic  # noqa: PLC0415 - the same

    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker}", "log_level": 0})
    with contextlib.suppress(KafkaException):
        if TOPIC in admin.list_topics(timeout=1).topics:
            return True
        for made in admin.create_topics([NewTopic(TOPIC, 4, 1)], operation_timeout=5).values():
            made.result(5)
    return False


def messages(broker: int) -> int:
    """How many messages TOPIC holds."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - see above

    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{broker}", "group.id": "bench", "log_level": 0})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(TOPIC, n), timeout=10)[1] for n in range(4))
    finally:
        consumer.close()


def hold_to_redis(counted: int, answered: int, abandoned: int) -> None:
    """RunFailed unless what Redis counted is what was answered, but for what the load generator left behind."""
    if not answered <= counted <= answered + abandoned + 100:  # and what asked whether it was up, and proved its limits
        raise RunFailed(f"{answered} requests were answered, and Redis counted {counted}")
