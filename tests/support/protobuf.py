"""Protocol Buffers as others read them: by the official schemas, compiled when a test asks."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SCHEMA = Path("/usr/share/gocode/src/github.com/prometheus/client_model")
METRICS = "io/prometheus/client/metrics.proto"
# Fields that are younger than Debian 12's schema: message, name, number, type.
YOUNGER = (
    ("Histogram", "start_timestamp", 15, ".google.protobuf.Timestamp"),
    ("Counter", "start_timestamp", 3, ".google.protobuf.Timestamp"),
    ("MetricFamily", "unit", 5, None),
)


def _add_younger(file: Any) -> None:
    messages = {each.name: each for each in file.message_type}
    for message, name, number, type_name in YOUNGER:
        known = {each.number for each in messages[message].field}
        if number in known:
            continue
        field = messages[message].field.add(name=name, number=number, label=1)
        if type_name:
            field.type, field.type_name = 11, type_name
        else:
            field.type = 9
    if "google/protobuf/timestamp.proto" not in file.dependency:
        file.dependency.append("google/protobuf/timestamp.proto")


@cache
def metric_family() -> Any:
    """The class io.prometheus.client.MetricFamily."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        command = ["protoc", f"-I{SCHEMA}", f"--descriptor_set_out={out}", METRICS]
        subprocess.run(command, check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in files.file:
        if file.name == METRICS:
            _add_younger(file)
            pool.Add(file)
    name = "io.prometheus.client.MetricFamily"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
        shift += 7


def delimited(body: bytes) -> list[Any]:
    """The families of a scrape, each of which comes after its length."""
    found, at = [], 0
    while at < len(body):
        n, at = _varint(body, at)
        assert at + n <= len(body)
        found.append(metric_family().FromString(body[at : at + n]))
        at += n
    return found


def unknown_fields(message: Any) -> list[int]:
    """Numbers of fields that the schema does not have, in the message and all within it."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    fields: Any = UnknownFieldSet(message)
    found = [each.field_number for each in fields]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                found += unknown_fields(each)
    return found
