"""The messages of the gRPC protocols as Python classes, in a pool of their own.

A worker's process may hold TensorFlow, and a client's `tritonclient`; both have the same names in
protobuf's default pool, where a name may stand only once.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import (
    any_pb2,
    duration_pb2,
    message_factory,
    wrappers_pb2,
)
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fingerpost.basics.proto_file import read_pool

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["FILES", "message_class", "pool", "service"]

# A file after those that it imports.
FILES: Final = (
    "inference.proto",
    "tensorflow.proto",
    "tensorflow_serving.proto",
    "orca.proto",
    "orca_service.proto",
    "rpc_status.proto",
)
_SHIPPED: Final = (any_pb2, duration_pb2, wrappers_pb2, health_pb2, reflection_pb2)


@cache
def pool() -> DescriptorPool:
    """The pool with all messages and services of a worker, for reflection too."""
    folder = files("fingerpost.worker.grpc.schema") / "protos"
    return read_pool(_SHIPPED, folder, FILES)


@cache
def message_class(name: str) -> Any:
    """The class of a message, by its full name, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def service(name: str) -> ServiceDescriptor:
    """A service by its full name."""
    return pool().FindServiceByName(name)
