//! The agreement between both ends of a tunnel: names, paths, windows, keep-alive. No I/O.

use std::time::Duration;

/// The protocol that the tunnel is upgraded to.
pub const PROTOCOL: &str = "evroc-tunnel";
/// The path of a request for the metrics of the process.
pub const METRICS_PATH: &str = "/v1/metrics";

/// The kind of a tunnel's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TunnelKind {
    /// The host's agent's.
    #[default]
    Node,
    /// The gateway's on the host.
    Edge,
}

impl TunnelKind {
    /// The subresource of a Host that is upgraded to the tunnel.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Node => "tunnel",
            Self::Edge => "edgetunnel",
        }
    }
}

/// Names the target of a request to [`DIAL_PATH`]: `machine/<uid>:<port>`.
pub const TARGET_HEADER: &str = "x-evroc-target";
/// In the answer to a request for a service's log: how many bytes of the body had been written before the request. What comes after
/// them is in the order in which it is written, so only the first part can be merged with those of other hosts.
pub const WRITTEN_HEADER: &str = "x-evroc-log-written";
/// The path of a request for a connection.
pub const DIAL_PATH: &str = "/v1/dial";

/// A tunnel that carries nothing is asked for a sign of life this often: no more than some seconds pass until the loss of the
/// connection is noticed, and a firewall on the way sees traffic.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Without an answer within this time the connection is dead.
pub const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// The bytes in flight in one stream: the bandwidth-delay product of 1 Gbit/s at 8 ms.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// The bytes in flight in all streams of a tunnel.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// The path in the API at which a process on `host` opens its tunnel.
pub fn tunnel_path(host: &str, kind: TunnelKind) -> String {
    format!("/apis/infra.evroclabs.net/v1alpha1/hosts/{host}/{}", kind.subresource())
}

/// The value of [`TARGET_HEADER`] for a port of a machine.
pub fn machine_target(uid: &str, port: u16) -> String {
    format!("machine/{uid}:{port}")
}

/// Reads a value of [`TARGET_HEADER`]: the machine's uid and the port.
pub fn parse_machine_target(text: &str) -> Option<(&str, u16)> {
    let (uid, port) = text.strip_prefix("machine/")?.split_once(':')?;
    Some((uid, port.parse().ok().filter(|port| *port != 0)?))
}

/// Something to do with a running machine at once, at the request of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineAction {
    /// Stop executing the guest.
    Pause,
    /// Go on with a paused guest.
    Resume,
    /// Press the reset button.
    Reset,
    /// End the guest without a request to it.
    ForceStop,
}

impl MachineAction {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Reset, Self::ForceStop];

    /// The last part of the action's path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::ForceStop => "force-stop",
        }
    }

    /// The action of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// The path of an action.
pub fn action_path(uid: &str, action: MachineAction) -> String {
    format!("/v1/machines/{uid}/actions/{}", action.name())
}

/// The path of a machine's serial console.
pub fn console_path(uid: &str) -> String {
    format!("/v1/machines/{uid}/console")
}

/// The path of the end of a machine's output on its serial console.
pub fn serial_log_path(uid: &str, tail_bytes: u64) -> String {
    format!("/v1/machines/{uid}/serial-log?tailBytes={tail_bytes}")
}

/// The path of the end of the output of a virtual machine's previous run.
pub fn previous_serial_log_path(virtual_machine_uid: &str, tail_bytes: u64) -> String {
    format!("/v1/virtual-machines/{virtual_machine_uid}/previous-serial-log?tailBytes={tail_bytes}")
}

/// The path of the output of a service's replicas.
pub fn service_log_path(namespace: &str, service: &str, options: LogOptions) -> String {
    format!("/v1/services/{namespace}/{service}/log?{}", options.query())
}

/// The selection of a service's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Begin with this many of the last lines; everything if absent.
    pub tail_lines: Option<u64>,
    /// Nothing that was written before.
    pub since: Option<jiff::Timestamp>,
    /// Each line begins with the time when it was written.
    pub timestamps: bool,
}

impl LogOptions {
    /// As the query of a request; [`crate::serve_connection`] reads it.
    pub fn query(&self) -> String {
        let mut query = format!("follow={}&timestamps={}", self.follow, self.timestamps);
        query.extend(self.tail_lines.map(|lines| format!("&tailLines={lines}")));
        query.extend(self.since.map(|since| format!("&sinceTime={since}")));
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_was_written() {
        assert_eq!(parse_machine_target(&machine_target("6f1c", 22)), Some(("6f1c", 22)));
        for bad in ["", "machine/6f1c", "machine/6f1c:0", "machine/6f1c:x", "replica/6f1c:22"] {
            assert_eq!(parse_machine_target(bad), None, "{bad}");
        }
    }
}
