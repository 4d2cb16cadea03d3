//! Turns, preemption, and the end of an owner.

use super::*;

/// Turns take as long as the test lets them.
struct Door {
    opened: tokio::sync::Semaphore,
    log: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Start,
    Stop,
    Kill,
    Remove,
}

#[derive(Debug, Error)]
#[error("no")]
struct No;

impl Workload for Arc<Door> {
    type Request = Kind;
    type Kind = Kind;
    type Answer = String;
    type Error = No;

    fn kind(request: &Kind) -> Kind {
        *request
    }

    fn arrive(ahead: &[Kind], request: Kind) -> Arrival {
        match (ahead.first(), request) {
            (_, request) if ahead.contains(&request) => Arrival::Join,
            (Some(Kind::Stop), Kind::Kill) => Arrival::Preempt,
            _ if ahead.contains(&Kind::Remove) => Arrival::Refuse("it is being removed"),
            _ => Arrival::Queue,
        }
    }

    async fn turn(self: Arc<Self>, request: Kind) -> Result<Turn<String>, No> {
        self.log.lock().unwrap().push(format!("begin {request:?}"));
        self.opened.acquire().await.unwrap().forget();
        self.log.lock().unwrap().push(format!("end {request:?}"));
        match request {
            Kind::Remove => Ok(Turn::Removed("removed".into())),
            request => Ok(Turn::Done(format!("{request:?}"))),
        }
    }
}

fn owners() -> (Arc<Door>, Owners<Arc<Door>>) {
    let door = Arc::new(Door { opened: tokio::sync::Semaphore::new(0), log: Mutex::default() });
    let made = door.clone();
    (door, Owners::new(move |_| made.clone()))
}

/// Runs until every task waits for something.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn ask(owners: &Owners<Arc<Door>>, kind: Kind) -> tokio::task::JoinHandle<AskResult<Arc<Door>>> {
    let owners = owners.clone();
    tokio::spawn(async move { owners.ask("u", kind).await })
}

#[tokio::test]
async fn equal_requests_share_a_turn_and_others_wait() {
    let (door, owners) = owners();
    let first = ask(&owners, Kind::Start);
    settle().await;
    let second = ask(&owners, Kind::Start);
    let third = ask(&owners, Kind::Stop);
    settle().await;
    assert_eq!(owners.doing("u"), Some(Kind::Start));
    door.opened.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), "Start");
    assert_eq!(second.await.unwrap().unwrap(), "Start");
    assert_eq!(third.await.unwrap().unwrap(), "Stop");
    assert_eq!(*door.log.lock().unwrap(), ["begin Start", "end Start", "begin Stop", "end Stop"]);
    assert_eq!(owners.doing("u"), None);
}

#[tokio::test]
async fn a_turn_that_is_preempted_is_answered_by_the_one_that_took_its_place() {
    let (door, owners) = owners();
    let polite = ask(&owners, Kind::Stop);
    settle().await;
    let hard = ask(&owners, Kind::Kill);
    settle().await;
    door.opened.add_permits(1);
    assert_eq!(polite.await.unwrap().unwrap(), "Kill");
    assert_eq!(hard.await.unwrap().unwrap(), "Kill");
    assert_eq!(*door.log.lock().unwrap(), ["begin Stop", "begin Kill", "end Kill"]);
}

#[tokio::test]
async fn an_owner_goes_with_its_workload_and_comes_again() {
    let (door, owners) = owners();
    let removed = ask(&owners, Kind::Remove);
    settle().await;
    let refused = ask(&owners, Kind::Start).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "it is being removed");
    door.opened.add_permits(1);
    assert_eq!(removed.await.unwrap().unwrap(), "removed");
    settle().await;
    assert!(owners.is_empty());
    door.opened.add_permits(1);
    assert_eq!(ask(&owners, Kind::Start).await.unwrap().unwrap(), "Start");
}

#[tokio::test]
async fn an_accepted_request_is_done_although_its_caller_left() {
    let (door, owners) = owners();
    let given_up = ask(&owners, Kind::Start);
    settle().await;
    given_up.abort();
    door.opened.add_permits(1);
    settle().await;
    assert_eq!(*door.log.lock().unwrap(), ["begin Start", "end Start"]);
}
