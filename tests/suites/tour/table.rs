//! The tour, in its order: the lines that a user types, and the checks behind them.
//!
//! A deadline is the longest that a step may take on two cores without hardware acceleration; it ends steps that hang.

use std::time::Duration;

use super::checks::{api, guests, inputs, kills, kubectls, processes, run, start, stop};
use super::fresh;
use super::milestone::Milestone::{M2, M3, M4, M5, M6, M7};
use super::step::Act::{Conversation, Line, Look};
use super::step::Step;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every step, in order.
#[rustfmt::skip]
pub fn steps() -> Vec<Step> {
    let step = |milestone, within, act| Step { milestone, within, act };
    vec![
        // A cloud.
        step(M3, s(420), Line("make run", start::prints_what_to_do_next)),
        step(M2, s(5),   Line("eval \"$(scripts/env)\"", start::sets_the_shell_up)),
        step(M2, s(5),   Look("the credentials are their owner's alone", start::credentials_are_private)),
        step(M2, s(10),  Line("kubectl get vm,disk", start::anything)),
        step(M4, s(10),  Line("kubectl get diskimages,vmvirtualresources", start::shows_the_catalogue)),
        step(M2, s(10),  Look("callers without credentials get no answer", api::anonymous_is_refused)),
        step(M2, s(20),  Look("kubectl knows the kinds and explains their fields", api::kinds_are_explained)),
        step(M2, s(20),  Look("a Disk can be made, changed, watched and removed", api::a_disk_lives)),
        step(M2, s(10),  Look("an unknown field is refused by its path", inputs::unknown_field)),
        step(M2, s(10),  Look("a value out of its range is refused by its path", inputs::bad_value)),
        step(M3, s(10),  Look("only the host agent and the supervisor are root", processes::roles_have_no_privileges)),
        step(M3, s(30),  Look("a killed role comes back and no connection is refused", processes::roles_come_back)),
        step(M3, s(30),  Look("a killed supervisor is taken over by the next start", processes::supervisor_is_taken_over)),
        step(M3, s(20),  Look("a second `make run` takes under 20 s and no network", start::again_without_network)),

        // A virtual machine.
        step(M4, s(5),   Look("what the machine holds before", guests::note_existing)),
        step(M4, s(10),  Line("kubectl apply -f examples/vm.yaml", start::anything)),
        step(M4, s(130), Line("kubectl wait vm/hello --for=condition=Ready --timeout=2m", start::anything)),
        step(M4, s(10),  Line("kubectl get vm,disk -o wide", guests::shows_the_machine)),
        step(M4, s(90),  Conversation("evroc compute vm console hello", guests::console_has_a_prompt)),
        step(M4, s(90),  Line("evroc compute vm ssh hello -- uname -a", guests::is_the_guests_kernel)),
        step(M4, s(10),  Look("the guest is reported as up", guests::guest_is_ready)),
        step(M4, s(10),  Look("QEMU boots from the Disk's own bytes, in its own network", guests::qemu_is_what_it_should_be)),
        step(M4, s(10),  Look("only the guest's user runs QEMU, and it may do nothing", guests::qemu_has_no_privileges)),
        step(M4, s(30),  Look("a disk that is in use is refused by its user's name", inputs::disk_in_use)),
        step(M4, s(30),  Look("an image that does not exist is reported by its name", inputs::missing_image)),
        step(M4, s(30),  Look("a profile that does not fit is reported with the free memory", inputs::not_enough_memory)),
        step(M4, s(60),  Look("the guest outlives the host agent and the supervisor", guests::outlives_the_agent)),
        step(M4, s(180), Look("what a guest writes is read by the next VM of the same disk", guests::marker_survives)),

        // A service.
        step(M5, s(10),  Line("evroc registry login", start::anything)),
        step(M5, s(30),  Line("skopeo copy oci:$EVROC_HELLO_IMAGE:latest docker://$EVROC_REGISTRY/demo/hello:v1", start::anything)),
        step(M5, s(10),  Line("kubectl apply -f examples/service.yaml", start::anything)),
        step(M5, s(70),  Line("kubectl wait service/hello --for=condition=Ready --timeout=1m", start::anything)),
        step(M5, s(30),  Line("curl -sS --cacert $EVROC_CA $(kubectl get service hello -o jsonpath={.status.url})/", run::greets)),
        step(M5, s(120), Look("after idling no process of the container runs", run::idles_to_zero)),
        step(M5, s(30),  Line("curl -sS --cacert $EVROC_CA $(kubectl get service hello -o jsonpath={.status.url})/?again", run::greets)),
        step(M5, s(20),  Line("evroc run logs hello", run::logs_show_the_requests)),
        step(M5, s(240), Look("500 requests across zero and back see no status but 200", run::five_hundred_requests)),
        step(M5, s(60),  Look("a container that would be root is refused by its user", inputs::root_container)),
        step(M5, s(10),  Look("a port below 1024 is refused by its path", inputs::low_port)),
        step(M5, s(30),  Look("an image that was never pushed is reported by its name", inputs::missing_container_image)),

        // The end.
        step(M3, s(10),  Line("evrocd status", start::status_tells)),
        step(M5, s(90),  Line("kubectl delete -f examples/", start::anything)),
        step(M5, s(420), Look("every other kubectl does the same", kubectls::every_other_one_does)),
        step(M4, s(60),  Look("processes, links, mounts and files are back to the state before", guests::everything_is_back)),
        step(M4, s(90),  Look("a VM is running when the cloud is stopped", guests::run_one_more)),
        step(M3, s(90),  Line("make stop", stop::had_something_to_stop)),
        step(M3, s(10),  Look("no process of the cloud is left", stop::nothing_runs)),
        step(M4, s(150), Look("the next `make run` brings the VM back", stop::vm_comes_back)),
        step(M3, s(90),  Look("`evrocd down --purge` leaves nothing", stop::purge_leaves_nothing)),

        // The same once more, and worse.
        step(M6, s(480), Look("the tour holds again, with each process killed at every line", kills::every_process_at_every_line)),
        step(M6, s(90),  Look("after all that `evrocd down --purge` leaves nothing", kills::purge_leaves_nothing)),
        step(M7, s(1080), Look("the README's lines work for a user of a fresh machine and leave nothing", fresh::readme_holds_and_leaves_nothing)),
    ]
}
