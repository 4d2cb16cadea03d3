//! `evroc compute placementgroup`.

use anyhow::Context;
use clap::{Args, Subcommand};
use evroc_api::compute::{Placement, PlacementGroupSpec};
use kube::api::{Api, DeleteParams, PostParams};

use super::list::List;
use crate::config::Cloud;
use crate::vm::GROUP;
use crate::{api, names, table};

/// The commands of `evroc compute placementgroup`.
#[derive(Subcommand)]
pub enum PlacementGroup {
    /// Create a placement group, whose virtual machines run on different hosts
    Create {
        #[command(flatten)]
        named: Named,
        /// The zone of the group and its virtual machines [default: the first]
        #[arg(long)]
        zone: Option<String>,
    },
    /// List placement groups
    List(List),
    /// Show one placement group with its virtual machines
    Get(Named),
    /// Delete a placement group that no virtual machine uses any more
    Delete(Named),
}

/// One placement group.
#[derive(Args)]
pub struct Named {
    /// Its name
    #[arg(value_parser = names::parse)]
    name: String,
}

/// Runs a command.
pub async fn run(cloud: &Cloud, command: PlacementGroup) -> anyhow::Result<()> {
    let groups = Api::<evroc_api::compute::PlacementGroup>::namespaced(cloud.client.clone(), &cloud.namespace);
    match command {
        PlacementGroup::Create { named: Named { name }, zone } => {
            let placement = zone.map(|zone| Placement { zone: Some(zone) });
            let spec = PlacementGroupSpec { placement, ..PlacementGroupSpec::default() };
            let group = evroc_api::compute::PlacementGroup::new(&name, spec);
            groups.create(&PostParams::default(), &group).await.context("cannot create the placement group")?;
        }
        PlacementGroup::List(list) => list.show(cloud, GROUP, "placementgroups").await?,
        PlacementGroup::Get(Named { name }) => {
            let path = api::path(cloud, GROUP, "placementgroups", &format!("/{name}"));
            table::print(&api::table(cloud, &path).await?, true);
            let group = groups.get(&name).await.context("cannot read the placement group")?;
            for member in group.status.iter().flat_map(|status| &status.virtual_machines) {
                println!("{}", line(member));
            }
        }
        PlacementGroup::Delete(Named { name }) => {
            groups.delete(&name, &DeleteParams::default()).await.context("cannot delete the placement group")?;
        }
    }
    Ok(())
}

/// A member in one line.
fn line(member: &evroc_api::compute::VirtualMachineMemberStatus) -> String {
    let name = &member.name;
    match (member.scheduled, member.message.as_deref()) {
        (Some(true), _) => format!("VM {name}: has a host of its own"),
        (_, Some(why)) => format!("VM {name}: {why}"),
        (_, None) => format!("VM {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evroc_api::compute::VirtualMachineMemberStatus;

    #[test]
    fn a_member_says_what_became_of_it() {
        let member = |scheduled, message: Option<&str>| VirtualMachineMemberStatus {
            name: "a".into(),
            scheduled,
            message: message.map(str::to_owned),
        };
        assert_eq!(line(&member(Some(true), None)), "VM a: has a host of its own");
        assert_eq!(line(&member(Some(false), Some("the VM is stopped"))), "VM a: the VM is stopped");
        assert_eq!(line(&member(None, None)), "VM a");
    }
}
