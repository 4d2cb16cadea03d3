//! Host agent: machines, disks, containers, host network.
