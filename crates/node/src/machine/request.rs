//! Decides which request is legal in which state, and with which others ahead of it: no locks, no input or output.

use crate::owner::Arrival;

/// The state of a machine (see the diagram in the module above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Nothing of it is on this host.
    Absent,
    /// Its hypervisor is being started.
    Starting,
    /// Its hypervisor lives.
    Running,
    /// The guest was requested to power off, or is being ended.
    Stopping,
    /// Its shim was killed: the hypervisor may live, but nothing can reach it.
    Orphaned,
    /// The hypervisor has ended; record, logs and limits are still here.
    Ended,
}

/// A request about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run the guest.
    Start,
    /// Request the guest to power off; end it if it does not.
    Stop,
    /// End the guest without a request to it.
    ForceStop,
    /// End the hypervisor that lost its shim.
    EndOrphan,
    /// Remove every trace; the guest is ended first.
    Remove,
    /// Attach to the serial console.
    Console,
    /// Read the serial log.
    SerialLog,
    /// Change devices of the running guest: grow, attach, detach disks.
    ChangeDevices,
    /// Let a guest that the hypervisor has paused go on.
    Resume,
    /// Stop executing the guest.
    Pause,
    /// Press the guest's reset button.
    Reset,
}

/// Whether to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Do it.
    Accept,
    /// The state is reached already, or will be.
    AlreadyDone,
    /// Ask again when the state has changed; the text names the reason.
    Later(&'static str),
    /// It is illegal in this state; the text names the reason.
    Refuse(&'static str),
}

/// Decides whether a request is legal in a state.
pub fn judge(state: MachineState, request: Request) -> Disposition {
    use Disposition::{Accept, AlreadyDone, Later, Refuse};
    use MachineState as S;
    use Request as R;
    match (request, state) {
        (R::Start, S::Absent | S::Ended) => Accept,
        (R::Start, S::Starting | S::Running) => AlreadyDone,
        (R::Start, S::Stopping) => Later("the machine is stopping"),
        (R::Start, S::Orphaned) => Later("the hypervisor of the former run has to be ended first"),

        // A guest that is not up yet does not react to its power button.
        (R::Stop, S::Starting) => Later("the machine is starting"),
        (R::Stop, S::Running | S::Orphaned) => Accept,
        (R::Stop, S::Stopping | S::Ended | S::Absent) => AlreadyDone,

        (R::ForceStop, S::Starting | S::Running | S::Stopping | S::Orphaned) => Accept,
        (R::ForceStop, S::Ended | S::Absent) => AlreadyDone,

        (R::EndOrphan, S::Orphaned) => Accept,
        (R::EndOrphan, S::Ended | S::Absent) => AlreadyDone,
        (R::EndOrphan, S::Starting | S::Running | S::Stopping) => Refuse("the machine has its shim"),

        (R::Remove, S::Absent) => AlreadyDone,
        (R::Remove, _) => Accept,

        (R::Console, S::Starting | S::Running | S::Stopping) => Accept,
        (R::Console, S::Orphaned) => Refuse("the shim that held the console was killed"),
        (R::Console, S::Ended | S::Absent) => Refuse("the machine does not run"),

        (R::SerialLog, S::Absent) => Refuse("the machine never ran on this host"),
        (R::SerialLog, _) => Accept,

        (R::ChangeDevices | R::Resume | R::Pause | R::Reset, S::Running) => Accept,
        (R::ChangeDevices | R::Resume | R::Pause | R::Reset, S::Starting) => Later("the machine is starting"),
        (R::ChangeDevices | R::Resume | R::Pause | R::Reset, S::Stopping | S::Orphaned | S::Ended | S::Absent) => {
            Refuse("the machine does not run")
        }
    }
}

/// Decides about a request with others ahead of it: the first is under way, the others wait.
pub fn arrive(ahead: &[Request], request: Request) -> Arrival {
    use Request as R;
    let under_way = ahead.first();
    match request {
        request if ahead.last() == Some(&request) => Arrival::Join,
        // A guest that is being requested to power off is ended at once.
        R::ForceStop | R::Remove if under_way == Some(&R::Stop) => Arrival::Preempt,
        R::ForceStop if ahead.contains(&R::ForceStop) => Arrival::Join,
        R::ChangeDevices | R::Resume | R::Pause | R::Reset
            if ahead.iter().any(|r| matches!(r, R::Stop | R::ForceStop | R::Remove)) =>
        {
            Arrival::Refuse("the machine is being stopped")
        }
        _ => Arrival::Queue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are requests, columns are states: A accept, = already done, w wait, - refuse.
    #[test]
    fn the_whole_table() {
        use Request::*;
        let states = [
            MachineState::Absent,
            MachineState::Starting,
            MachineState::Running,
            MachineState::Stopping,
            MachineState::Orphaned,
            MachineState::Ended,
        ];
        let expected = [
            (Start, "A==wwA"),
            (Stop, "=wA=A="),
            (ForceStop, "=AAAA="),
            (EndOrphan, "=---A="),
            (Remove, "=AAAAA"),
            (Console, "-AAA--"),
            (SerialLog, "-AAAAA"),
            (ChangeDevices, "-wA---"),
            (Resume, "-wA---"),
            (Pause, "-wA---"),
            (Reset, "-wA---"),
        ];
        for (request, row) in expected {
            let found: String = states
                .iter()
                .map(|state| match judge(*state, request) {
                    Disposition::Accept => 'A',
                    Disposition::AlreadyDone => '=',
                    Disposition::Later(_) => 'w',
                    Disposition::Refuse(_) => '-',
                })
                .collect();
            assert_eq!(found, row, "{request:?}");
        }
    }

    #[test]
    fn requests_that_lose_a_race() {
        use Request::*;
        let stopped = Arrival::Refuse("the machine is being stopped");
        for (ahead, request, expected) in [
            (&[][..], Start, Arrival::Queue),
            (&[Start][..], Start, Arrival::Join),
            (&[Start][..], Stop, Arrival::Queue),
            (&[Start, Stop][..], Stop, Arrival::Join),
            // A start after a stop is a start of its own, not that from before.
            (&[Start, Stop][..], Start, Arrival::Queue),
            (&[Stop][..], ForceStop, Arrival::Preempt),
            (&[Stop][..], Remove, Arrival::Preempt),
            (&[Start][..], ForceStop, Arrival::Queue),
            (&[Start, ForceStop, Start][..], ForceStop, Arrival::Join),
            (&[Stop][..], ChangeDevices, stopped),
            (&[Start, Remove][..], Resume, stopped),
            (&[ChangeDevices][..], Resume, Arrival::Queue),
        ] {
            assert_eq!(arrive(ahead, request), expected, "{request:?} behind {ahead:?}");
        }
    }
}
