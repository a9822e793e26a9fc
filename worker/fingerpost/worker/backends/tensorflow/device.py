"""Where TensorFlow runs and how much it takes: settled once, before its first operation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.devices import find_gpus, visible

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import LoadOptions

__all__ = ["claim_device"]


def claim_device(tf: Any, options: LoadOptions) -> str:
    """Set device, memory and threads for this process; return `cpu` or the GPU's name.

    One GPU at most is made visible, the first for `auto`: TensorFlow takes memory on every GPU that
    it sees. Its memory grows as it is needed, up to `memory_fraction` of the device.

    Raises:
        ConfigurationError: no such GPU, or this process began with other settings, which TensorFlow
            cannot change.
    """
    config = tf.config
    gpus = config.list_physical_devices("GPU")
    index = int(options.device.partition(":")[2] or 0)
    if options.device == "cpu":
        gpus = []
    elif options.device != "auto" and index >= len(gpus):
        raise ConfigurationError(
            f"device is {options.device}, but TensorFlow sees {len(gpus)} GPUs: see that "
            "'fingerpost[gpu]' is installed and that nvidia-smi lists the device"
        )
    gpus = gpus[index : index + 1]
    try:
        config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            _limit_memory(config, gpu, index, options.memory_fraction)
        if options.threads:
            config.threading.set_intra_op_parallelism_threads(options.threads)
            config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ConfigurationError(
            f"TensorFlow takes its device and threads once in a process ({error}): "
            "give all models of a worker the same"
        ) from error
    for gpu in gpus:
        return str(config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return "cpu"


def _limit_memory(config: Any, gpu: Any, index: int, fraction: float | None) -> None:
    if fraction is None:
        config.experimental.set_memory_growth(gpu, enable=True)
        return
    known = visible(find_gpus(), os.environ)
    if index >= len(known) or not known[index].total_mb:
        raise ConfigurationError(
            f"memory_fraction is {fraction:g}, but NVML does not tell how much memory the GPU has: "
            "pip install nvidia-ml-py, or leave it out"
        )
    # A limit makes the GPU a logical device, which cannot be told to grow but by the environment;
    # it is read when the first operation creates the device.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    megabytes = int(known[index].total_mb * 1e6 * fraction / 2**20)
    config.set_logical_device_configuration(
        gpu, [config.LogicalDeviceConfiguration(memory_limit=megabytes)]
    )
