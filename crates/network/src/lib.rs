//! VPCs, address allocation, security rules in a host-independent form.
