//! Kubernetes-style API server over a store; kinds are registered.
