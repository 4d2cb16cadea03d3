//! Controllers for virtual machines, disks and placement.
