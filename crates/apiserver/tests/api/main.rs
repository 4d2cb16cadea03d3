//! The API over HTTP, judged by a plain client, by `kube` and by kubectl.
