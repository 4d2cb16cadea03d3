//! Hypervisor drivers: QEMU over QMP, and a simulated one.
