//! Events of a running guest, as its monitor reports them.

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast;

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// `SHUTDOWN`, `RESET`, `DEVICE_DELETED`, …
    #[serde(rename = "event")]
    pub name: String,
    /// Its data.
    #[serde(default)]
    pub data: Value,
}

/// Something that happened to a running guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// It reboots.
    Reset,
    /// Its state may have changed: paused, resumed, powered off, crashed.
    StateChanged,
    /// Events were lost: anything may have happened.
    Missed,
}

/// The events of one conversation. Ends with it.
#[derive(Debug)]
pub struct Events(Option<broadcast::Receiver<Event>>);

impl Events {
    /// Those that come from `receiver`.
    pub fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(Some(receiver))
    }

    /// None ever: for drivers without events.
    pub fn none() -> Self {
        Self(None)
    }

    /// The next one; `None` when the conversation is over. Can be dropped and called again without losing any.
    pub async fn next(&mut self) -> Option<GuestEvent> {
        let Some(receiver) = &mut self.0 else { return std::future::pending().await };
        loop {
            match receiver.recv().await {
                Ok(event) => match meaning(&event.name) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                Err(broadcast::error::RecvError::Lagged(_)) => return Some(GuestEvent::Missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn meaning(name: &str) -> Option<GuestEvent> {
    match name {
        "RESET" => Some(GuestEvent::Reset),
        "STOP" | "RESUME" | "SHUTDOWN" | "SUSPEND" | "SUSPEND_DISK" | "WAKEUP" | "WATCHDOG" | "GUEST_PANICKED"
        | "GUEST_CRASHLOADED" | "BLOCK_IO_ERROR" => Some(GuestEvent::StateChanged),
        _ => None,
    }
}
