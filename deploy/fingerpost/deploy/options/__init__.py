"""Options that several subcommands share: annotated types for the parameters of a command.

`cluster`, `model` and `registry` hold groups of options that a decorator adds to a command.
"""

from fingerpost.deploy.options.common import (
    DEFAULT_REGISTRY,
    FollowParent,
    Host,
    Insecure,
    Json,
    LogFormat,
    LogLevel,
    MaxPerClient,
    RegistryUrl,
    Relay,
)
from fingerpost.deploy.options.devices import (
    Device,
    Devices,
    MemoryFraction,
    ProcessesPerDevice,
)
from fingerpost.deploy.options.telemetry import AccessLogFile, Tracing

__all__ = [
    "DEFAULT_REGISTRY",
    "AccessLogFile",
    "Device",
    "Devices",
    "FollowParent",
    "Host",
    "Insecure",
    "Json",
    "LogFormat",
    "LogLevel",
    "MaxPerClient",
    "MemoryFraction",
    "ProcessesPerDevice",
    "RegistryUrl",
    "Relay",
    "Tracing",
]
