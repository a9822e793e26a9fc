"""A worker of Fingerpost in a pod: what it registers, and what is left when it goes."""

from __future__ import annotations

import json

import numpy as np
from tests.support.kubernetes.namespace import POD, endpoint
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig


class Flowers:
    labels = ("daisy", "rose")

    def predict(self, batch):
        return np.ones((len(batch), 2), np.float32)


async def test_a_worker_registers_its_models_and_leaves(
    api, namespace, connect, monkeypatch, tmp_path
):
    cluster = {"server": namespace.server}
    if (ca_file := getattr(api, "ca_file", None)) is not None:
        cluster["certificate-authority"] = ca_file
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": namespace.token}}],
                "contexts": [
                    {
                        "name": "c",
                        "context": {"cluster": "c", "user": "u", "namespace": namespace.name},
                    }
                ],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("POD_NAME", POD.name)
    monkeypatch.setenv("POD_UID", POD.uid)
    await namespace.put_slice("workers-1", [endpoint(zone="a")])
    watch = connect().watch("flowers")
    config = WorkerConfig(registry="kubernetes://", drain=DrainConfig(lease_s=0.1))
    worker = Worker.for_object(Flowers(), name="flowers", image_size=8, config=config)
    async with worker:
        await worker.register()
        await until(lambda: watch.view is not None and watch.view.instances, within_s=5)
        [instance] = watch.view.instances
        assert [each.id for each in worker.instances] == [instance.id]
        assert instance.models[0].name == "flowers"
        assert instance.boot_id
        assert instance.zone == "a"
        await connect().set_draining(instance.id, "new disk")
        await until(lambda: not watch.view.instances, within_s=2)
        await connect().set_draining(instance.id, None)
        await until(lambda: ids(watch.view) == [instance.id], within_s=2)
        await worker.leave()
        await until(lambda: watch.view.withdrawn == (instance.id,), within_s=2)
    await until(lambda: not watch.view.known, within_s=2)
