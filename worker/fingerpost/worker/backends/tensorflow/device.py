"""Sets TensorFlow's device, memory and threads, once, before its first operation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.devices import find_gpus, visible_gpus

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import LoadConfig

__all__ = ["claim_device"]


def claim_device(tf: Any, config: LoadConfig) -> str:
    """Set device, memory and threads for this process; return `cpu` or the GPU's name.

    At most one GPU is made visible, the first for `auto`: TensorFlow takes memory on every GPU that
    it sees. Its memory grows as needed, up to `memory_fraction` of the device.

    Raises:
        ConfigurationError: there is no such GPU, or TensorFlow has other settings in this process
            already, which it cannot change.
    """
    tf_config = tf.config
    gpus = tf_config.list_physical_devices("GPU")
    index = int(config.device.partition(":")[2] or 0)
    if config.device == "cpu":
        gpus = []
    elif config.device != "auto" and index >= len(gpus):
        raise ConfigurationError(
            f"device is {config.device}, but TensorFlow sees {len(gpus)} GPUs: check that "
            "'fingerpost[gpu]' is installed and that nvidia-smi lists the device"
        )
    gpus = gpus[index : index + 1]
    try:
        tf_config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            _limit_memory(tf_config, gpu, index, config.memory_fraction)
        if config.threads:
            tf_config.threading.set_intra_op_parallelism_threads(config.threads)
            tf_config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ConfigurationError(
            f"TensorFlow sets its device and threads once per process ({error}): "
            "give all models of a worker the same"
        ) from error
    for gpu in gpus:
        return str(tf_config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return "cpu"


def _limit_memory(tf_config: Any, gpu: Any, index: int, fraction: float | None) -> None:
    if fraction is None:
        tf_config.experimental.set_memory_growth(gpu, enable=True)
        return
    known = visible_gpus(find_gpus(), os.environ)
    if index >= len(known) or not known[index].total_mb:
        raise ConfigurationError(
            f"memory_fraction is {fraction:g}, but NVML does not report the GPU's memory: "
            "pip install nvidia-ml-py, or leave it out"
        )
    # A limit makes the GPU a logical device, whose memory grows only if this variable is set; it is
    # read when the first operation creates the device.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    megabytes = int(known[index].total_mb * 1e6 * fraction / 2**20)
    tf_config.set_logical_device_configuration(
        gpu, [tf_config.LogicalDeviceConfiguration(memory_limit=megabytes)]
    )
