//! Controllers for services, revisions and replicas; the autoscaler.
