"""Options that several subcommands share: annotated types for the parameters of a command.

`cluster` and `registry` hold groups of options that a decorator adds to a command.
"""

from fingerpost.deploy.options.common import (
    DEFAULT_REGISTRY,
    FollowParent,
    Host,
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
from fingerpost.deploy.options.model import (
    FollowSymlinks,
    ImageSize,
    InputLayer,
    InputMean,
    InputStd,
    Labels,
    ModelName,
    OutputLayer,
)
from fingerpost.deploy.options.telemetry import AccessLogFile, Tracing

__all__ = [
    "DEFAULT_REGISTRY",
    "AccessLogFile",
    "Device",
    "Devices",
    "FollowParent",
    "FollowSymlinks",
    "Host",
    "ImageSize",
    "InputLayer",
    "InputMean",
    "InputStd",
    "Json",
    "Labels",
    "LogFormat",
    "LogLevel",
    "MaxPerClient",
    "MemoryFraction",
    "ModelName",
    "OutputLayer",
    "ProcessesPerDevice",
    "RegistryUrl",
    "Relay",
    "Tracing",
]
