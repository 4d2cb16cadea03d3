"""A small operator as people write them with kopf: every Disk with the label `backup` gets a ConfigMap of its own."""

import kopf
from kubernetes import client, config

config.load_kube_config()
core = client.CoreV1Api()


@kopf.on.startup()
def settings(settings: kopf.OperatorSettings, **_):
    settings.persistence.finalizer = "suite.example/backup"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="suite.example")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="suite.example")
    settings.posting.enabled = True


@kopf.on.create("compute.evroclabs.net", "v1alpha1", "disks", labels={"backup": kopf.PRESENT})
@kopf.on.resume("compute.evroclabs.net", "v1alpha1", "disks", labels={"backup": kopf.PRESENT})
def begin(name, namespace, body, labels, patch, **_):
    plan = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"backup-{name}"}}
    plan["data"] = {"when": labels["backup"]}
    kopf.adopt(plan, owner=body)
    core.create_namespaced_config_map(namespace, plan)
    kopf.info(body, reason="Planned", message="A backup is planned.")
    patch.meta.annotations["suite.example/planned"] = "yes"


@kopf.on.update("compute.evroclabs.net", "v1alpha1", "disks", field="metadata.labels.backup")
def change(name, namespace, new, **_):
    core.patch_namespaced_config_map(f"backup-{name}", namespace, {"data": {"when": new}})


@kopf.on.delete("compute.evroclabs.net", "v1alpha1", "disks", labels={"backup": kopf.PRESENT})
def end(name, namespace, **_):
    core.patch_namespaced_config_map("ended", namespace, {"data": {name: "ended"}})
