"""kr8s: objects, waiting and watching in asyncio."""

import asyncio
import sys

import kr8s
from kr8s.asyncio.objects import ConfigMap, new_class

IMAGE = sys.argv[1]


async def main():
    api = await kr8s.asyncio.api()
    assert any(it["name"] == "virtualmachines" for it in await api.api_resources()), "no virtual machines"
    Disk = new_class(kind="Disk", version="compute.evroclabs.net/v1alpha1", namespaced=True)
    disk = await Disk({"metadata": {"name": "kr8s"}, "spec": {"diskImage": {"diskImageRef": {"name": IMAGE}}}}, namespace="demo")
    await disk.create()
    # `wait` reads the status, which exists once the platform has observed the disk.
    async with asyncio.timeout(20):
        async for _ in disk.watch():
            if "status" in disk.raw:
                break
        await disk.wait("condition=Ready")
    await disk.label(team="red")
    found = [it.name async for it in api.get("disks.compute.evroclabs.net", namespace="demo", label_selector="team=red")]
    assert found == ["kr8s"], found

    async def until_deleted():
        async for event, it in api.watch("disks.compute.evroclabs.net", namespace="demo"):
            if event == "DELETED" and it.name == "kr8s":
                return

    watching = asyncio.create_task(until_deleted())
    await disk.delete()
    await asyncio.wait_for(watching, 20)
    assert not await disk.exists()

    settings = await ConfigMap({"metadata": {"name": "kr8s"}, "data": {"a": "b"}}, namespace="demo")
    await settings.create()
    await settings.patch({"data": {"c": "d"}})
    await settings.refresh()
    assert settings.raw["data"] == {"a": "b", "c": "d"}, settings.raw
    await settings.delete()


asyncio.run(main())
