//! Errors as people read them: the operation, then its causes, the server's refusal in the server's words.

/// The text of an error and its causes in one line.
pub fn text(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                // Its cause is the same status once more.
                parts.push(refusal(status));
                break;
            }
            // Names of a library's layers; the cause says more.
            Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => continue,
            _ => cause.to_string(),
        };
        // Some errors repeat their cause.
        if !parts.last().is_some_and(|last| last.ends_with(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

fn refusal(status: &kube::core::Status) -> String {
    match (status.message.as_str(), status.reason.as_str()) {
        ("", "") => format!("the server answered with status {}", status.code),
        ("", reason) => format!("{reason} (status {})", status.code),
        (message, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use kube::core::Status;

    use super::*;

    fn refused(status: Status) -> String {
        let answer: Result<(), _> = Err(kube::Error::Api(Box::new(status)));
        text(&answer.context("cannot stop the VM").unwrap_err())
    }

    #[test]
    fn a_refusal_is_the_servers_message() {
        let message = "virtualmachines.compute.evroclabs.net \"x\" not found";
        let status = Status::failure(message, "NotFound").with_code(404);
        assert_eq!(refused(status), format!("cannot stop the VM: {message}"));
        assert_eq!(
            refused(Status::failure("", "Forbidden").with_code(403)),
            "cannot stop the VM: Forbidden (status 403)"
        );
    }

    #[test]
    fn a_broken_connection_is_its_cause() {
        let broken = std::io::Error::other("connection refused");
        let answer: Result<(), _> = Err(kube::Error::Service(Box::new(broken)));
        let error = answer.context("cannot stop the VM").unwrap_err();
        assert_eq!(text(&error), "cannot stop the VM: connection refused");
    }
}
