"""The official Python client: dynamic client, watch and informer, on our kinds and on core ones."""

import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, UnprocessibleEntityError

IMAGE = sys.argv[1]
NAMESPACE = "demo"


def disk(name, **labels):
    return {
        "apiVersion": "compute.evroclabs.net/v1alpha1",
        "kind": "Disk",
        "metadata": {"name": name, "labels": labels},
        "spec": {"diskImage": {"diskImageRef": {"name": IMAGE}}},
    }


def dynamic_client(api):
    disks = dynamic.DynamicClient(api).resources.get(api_version="compute.evroclabs.net/v1alpha1", kind="Disk")
    assert disks.namespaced and "watch" in disks.verbs and disks.short_names == ["disk"], disks
    created = disks.create(body=disk("one", team="red"), namespace=NAMESPACE)
    assert created.metadata.uid and created.metadata.generation == 1, created
    try:
        disks.create(body=disk("one"), namespace=NAMESPACE)
        raise AssertionError("the same name twice")
    except ConflictError as refusal:
        assert "AlreadyExists" in refusal.summary() or "already exists" in refusal.summary(), refusal.summary()
    try:
        disks.create(body={**disk("two"), "spec": {"diskSize": {"amount": -1, "unit": "GB"}}}, namespace=NAMESPACE)
        raise AssertionError("a negative size")
    except UnprocessibleEntityError as refusal:
        assert "spec.diskSize.amount" in refusal.summary(), refusal.summary()

    revision = disks.get(namespace=NAMESPACE).metadata.resourceVersion
    seen = []
    changed = threading.Thread(target=lambda: change(disks), daemon=True)
    changed.start()
    for event in disks.watch(namespace=NAMESPACE, resource_version=revision, label_selector="team=red", timeout=20):
        seen.append((event["type"], event["object"].metadata.name, event["object"].metadata.labels.step))
        if event["type"] == "DELETED":
            break
    changed.join()
    steps = [it for it in seen if it[2] == "merged"]
    assert steps and seen[-1][0] == "DELETED" and seen[-1][1] == "one", seen

    applied = disks.server_side_apply(body=disk("applied", team="blue"), namespace=NAMESPACE, field_manager="suite")
    assert applied.metadata.managedFields[0].manager == "suite", applied
    assert [it.metadata.name for it in disks.get(namespace=NAMESPACE, label_selector="team=blue").items] == ["applied"]
    disks.delete(name="applied", namespace=NAMESPACE)
    gone(lambda: disks.get(name="applied", namespace=NAMESPACE))


def change(disks):
    patch = {"metadata": {"labels": {"step": "merged"}}}
    disks.patch(name="one", namespace=NAMESPACE, body=patch, content_type="application/merge-patch+json")
    disks.delete(name="one", namespace=NAMESPACE)


def gone(read):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            read()
        except (NotFoundError, ApiException) as error:
            assert error.status == 404, error
            return
        time.sleep(0.05)
    raise AssertionError("not gone within 20 s")


def typed_core(api):
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="made-"), data={"k": "v"})
    )
    assert made.metadata.name.startswith("made-"), made
    core.patch_namespaced_config_map(made.metadata.name, NAMESPACE, {"data": {"l": "w"}})
    read = core.read_namespaced_config_map(made.metadata.name, NAMESPACE)
    assert read.data == {"k": "v", "l": "w"}, read.data
    page = core.list_namespaced_config_map(NAMESPACE, limit=1)
    assert len(page.items) == 1, page
    events = watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, timeout_seconds=5)
    first = next(events)
    assert first["type"] == "ADDED" and first["object"].metadata.name == made.metadata.name, first
    core.delete_namespaced_config_map(made.metadata.name, NAMESPACE)
    try:
        core.read_namespaced_config_map("none", NAMESPACE)
        raise AssertionError("an object that is not there")
    except ApiException as refusal:
        assert refusal.status == 404, refusal
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name="leader"), spec=client.V1LeaseSpec(holder_identity="a"))
    coordination = client.CoordinationV1Api(api)
    lease = coordination.create_namespaced_lease(NAMESPACE, lease)
    lease.spec.holder_identity = "b"
    coordination.replace_namespaced_lease("leader", NAMESPACE, lease)
    try:
        coordination.replace_namespaced_lease("leader", NAMESPACE, lease)
        raise AssertionError("an old resourceVersion")
    except ApiException as refusal:
        assert refusal.status == 409, refusal
    coordination.delete_namespaced_lease("leader", NAMESPACE)


def custom_objects(api):
    objects = client.CustomObjectsApi(api)
    place = ("compute.evroclabs.net", "v1alpha1", NAMESPACE, "disks")
    objects.create_namespaced_custom_object(*place, disk("custom"))
    deadline = time.monotonic() + 20
    while True:
        status = objects.get_namespaced_custom_object_status(*place, "custom").get("status", {})
        if any(it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", [])):
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    objects.delete_namespaced_custom_object(*place, "custom")
    gone(lambda: objects.get_namespaced_custom_object(*place, "custom"))


def informer(api):
    from kubernetes.informer import SharedInformer, ADDED, MODIFIED, DELETED

    core = client.CoreV1Api(api)
    seen = {ADDED: threading.Event(), MODIFIED: threading.Event(), DELETED: threading.Event()}
    it = SharedInformer(list_func=core.list_namespaced_config_map, namespace=NAMESPACE)
    for kind, event in seen.items():
        it.add_event_handler(kind, lambda _, event=event: event.set())
    it.start()
    name = "informed"
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name)))
    assert seen[ADDED].wait(20), "no ADDED"
    core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"a": "b"}})
    assert seen[MODIFIED].wait(20), "no MODIFIED"
    core.delete_namespaced_config_map(name, NAMESPACE)
    assert seen[DELETED].wait(20), "no DELETED"
    it.stop()


if __name__ == "__main__":
    api = config.new_client_from_config()
    for part in [dynamic_client, typed_core, custom_objects, informer]:
        part(api)
        print("passed", part.__name__, flush=True)
