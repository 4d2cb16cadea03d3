//! Which request is legal in which state: no locks, no input or output.

/// Where a machine is (see the diagram in the module above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of it is on this host.
    Absent,
    /// Its hypervisor is being started.
    Starting,
    /// The hypervisor runs the guest.
    Running,
    /// The guest was asked to power off, or is being ended.
    Stopping,
    /// The hypervisor has ended; record, logs and limits are still here.
    Ended,
}

/// What may be asked of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run the guest.
    Start,
    /// Ask the guest to power off.
    PowerDown,
    /// End the guest without asking it.
    ForceStop,
    /// Remove every trace; the guest is ended first.
    Remove,
    /// Attach to the serial console.
    Console,
    /// Read the serial log.
    SerialLog,
    /// Change a disk of the running guest: grow, attach, detach.
    ChangeDisk,
}

/// Whether to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Accept,
    /// It is so already, or under way.
    AlreadyDone,
    /// Ask again when the state has changed; the text says what is waited for.
    Later(&'static str),
    /// It makes no sense in this state; the text says why.
    Refuse(&'static str),
}

/// The table.
pub fn judge(state: State, request: Request) -> Verdict {
    use Request as R;
    use State as S;
    use Verdict::{Accept, AlreadyDone, Later, Refuse};
    match (request, state) {
        (R::Start, S::Absent | S::Ended) => Accept,
        (R::Start, S::Starting | S::Running) => AlreadyDone,
        (R::Start, S::Stopping) => Later("the machine is stopping"),

        // A guest that is not up yet does not hear its power button.
        (R::PowerDown, S::Starting) => Later("the machine is starting"),
        (R::PowerDown, S::Running) => Accept,
        (R::PowerDown, S::Stopping | S::Ended | S::Absent) => AlreadyDone,

        (R::ForceStop, S::Starting | S::Running | S::Stopping) => Accept,
        (R::ForceStop, S::Ended | S::Absent) => AlreadyDone,

        (R::Remove, S::Absent) => AlreadyDone,
        (R::Remove, _) => Accept,

        (R::Console, S::Starting | S::Running | S::Stopping) => Accept,
        (R::Console, S::Ended | S::Absent) => Refuse("the machine does not run"),

        (R::SerialLog, S::Absent) => Refuse("the machine never ran on this host"),
        (R::SerialLog, _) => Accept,

        (R::ChangeDisk, S::Running) => Accept,
        (R::ChangeDisk, S::Starting) => Later("the machine is starting"),
        (R::ChangeDisk, S::Stopping | S::Ended | S::Absent) => Refuse("the machine does not run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are requests, columns are states: A accept, = already done, w wait, - refuse.
    #[test]
    fn the_whole_table() {
        use Request::*;
        let states = [State::Absent, State::Starting, State::Running, State::Stopping, State::Ended];
        let expected = [
            (Start, "A==wA"),
            (PowerDown, "=wA=="),
            (ForceStop, "=AAA="),
            (Remove, "=AAAA"),
            (Console, "-AAA-"),
            (SerialLog, "-AAAA"),
            (ChangeDisk, "-wA--"),
        ];
        for (request, row) in expected {
            let found: String = states
                .iter()
                .map(|state| match judge(*state, request) {
                    Verdict::Accept => 'A',
                    Verdict::AlreadyDone => '=',
                    Verdict::Later(_) => 'w',
                    Verdict::Refuse(_) => '-',
                })
                .collect();
            assert_eq!(found, row, "{request:?}");
        }
    }
}
