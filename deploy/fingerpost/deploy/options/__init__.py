"""Options that several subcommands share: annotated types for the parameters of a command.

`cluster`, `model` and `registry` hold groups of options that a decorator adds to a command.
"""

from fingerpost.deploy.options.callers import AuditLogFile, CallersFile
from fingerpost.deploy.options.common import (
    DEFAULT_CLUSTER,
    AllowOrigins,
    Cluster,
    Deadline,
    FollowParent,
    Host,
    Insecure,
    Json,
    JsonReport,
    LogFormat,
    LogLevel,
    MaxPerClient,
    Priority,
    Relay,
    WaitForReady,
)
from fingerpost.deploy.options.devices import (
    Device,
    Devices,
    MemoryFraction,
    ProcessesPerDevice,
)
from fingerpost.deploy.options.telemetry import AccessLogFile, Tracing

__all__ = [
    "DEFAULT_CLUSTER",
    "AccessLogFile",
    "AllowOrigins",
    "AuditLogFile",
    "CallersFile",
    "Cluster",
    "Deadline",
    "Device",
    "Devices",
    "FollowParent",
    "Host",
    "Insecure",
    "Json",
    "JsonReport",
    "LogFormat",
    "LogLevel",
    "MaxPerClient",
    "MemoryFraction",
    "Priority",
    "ProcessesPerDevice",
    "Relay",
    "Tracing",
    "WaitForReady",
]
