//! One owner per VPC: all requests for a VPC go to its owner, and no request waits for another VPC.
//!
//! ```text
//!            load ──▶ Nothing ──ensure──▶ Record ──last port removed──▶ Record without ports ──some time──▶ Nothing
//!             │                             ▲ │ converge: at start, after each change, and from time to time
//!             ▼ the record is unreadable    │ └──▶ failed: reported, tried again
//!            Left: machines keep their network; once every tap is a known machine's, the record is written again
//! ```

use std::sync::{Arc, Weak};

use super::Host;
use super::state::{Ask, Kind};
use super::turn::VpcTurn;
use crate::net::error::NetworkError;
use crate::owner::{Arrival, Turn, Workload};
use crate::uid::Uid;

/// The owner of one VPC.
pub(super) struct VpcOwner {
    pub(super) uid: String,
    /// Not held: when the network is dropped, so is everything that this process keeps of VPCs.
    pub(super) host: Weak<Host>,
}

impl Workload for VpcOwner {
    type Request = Ask;
    type Kind = Kind;
    type Answer = ();
    type Error = NetworkError;

    fn kind(request: &Ask) -> Kind {
        if matches!(request, Ask::Upkeep) { Kind::Upkeep } else { Kind::Change }
    }

    fn arrive(ahead: &[Kind], request: Kind) -> Arrival {
        if request == Kind::Upkeep && ahead.contains(&request) { Arrival::Join } else { Arrival::Queue }
    }

    async fn turn(self: Arc<Self>, request: Ask) -> Result<Turn<()>, NetworkError> {
        let Some(host) = self.host.upgrade() else { return Ok(Turn::Removed(())) };
        let uid: Uid = self.uid.parse()?;
        let vpc = host.vpc(&uid);
        let mut state = vpc.state.lock().await;
        let turn = VpcTurn { host: &host, uid: &uid, state: &mut state };
        let is_removed = turn.carry_out(request).await;
        if is_removed {
            host.forget(&uid);
            return Ok(Turn::Removed(()));
        }
        *vpc.view() = state.view(host.linger);
        Ok(Turn::Done(()))
    }
}
