use std::time::{Duration, Instant};

use evroc_metrics::read::read;

use super::figures::Figures;
use super::read::{Process, Reading};
use super::screen::screen;

fn process(name: &str, text: &str) -> Process {
    Process { name: name.into(), samples: Ok(read(text).expect("OpenMetrics")) }
}

fn readings(before: Vec<Process>, now: Vec<Process>) -> (Reading, Reading) {
    let at = Instant::now();
    (Reading { at, processes: before }, Reading { at: at + Duration::from_secs(2), processes: now })
}

fn of(name: &str, kind: &str, lines: &[&str]) -> String {
    lines.iter().fold(format!("# TYPE {name} {kind}\n"), |all, line| format!("{all}{name}{line}\n"))
}

fn whole(families: &[String]) -> String {
    format!("{}# EOF\n", families.concat())
}

fn control(cpu: f64, requests: u32, slow: u32) -> String {
    whole(&[
        of("process_cpu_seconds", "counter", &[&format!("_total {cpu}")]),
        of("process_resident_memory_bytes", "gauge", &[" 52428800"]),
        of("process_open_fds", "gauge", &[" 40"]),
        of("process_threads", "gauge", &[" 9"]),
        of(
            "apiserver_request",
            "counter",
            &[
                &format!("_total{{verb=\"GET\",code=\"200\"}} {requests}"),
                &format!("_total{{verb=\"POST\",code=\"500\"}} {slow}"),
            ],
        ),
        of(
            "apiserver_request_duration_seconds",
            "histogram",
            &[
                &format!("_bucket{{le=\"0.001\"}} {requests}"),
                &format!("_bucket{{le=\"0.005\"}} {}", requests + slow),
                &format!("_bucket{{le=\"+Inf\"}} {}", requests + slow),
            ],
        ),
        of("apiserver_current_inflight_requests", "gauge", &["{request_kind=\"readOnly\"} 2"]),
        of("apiserver_longrunning_requests", "gauge", &["{verb=\"WATCH\"} 31", "{verb=\"CONNECT\"} 2"]),
        of("apiserver_storage_objects", "gauge", &["{resource=\"disks\"} 3", "{resource=\"hosts\"} 1"]),
        of("workqueue_depth", "gauge", &["{name=\"disk\"} 4"]),
        of(
            "controller_runtime_reconcile",
            "counter",
            &[&format!("_total{{controller=\"disk\",result=\"success\"}} {requests}")],
        ),
    ])
}

fn node() -> String {
    whole(&[
        of("evroc_node_guests", "gauge", &["{phase=\"Running\"} 2", "{phase=\"Failed\"} 1"]),
        of("evroc_node_committed_memory_bytes", "gauge", &[" 1073741824"]),
        of("evroc_node_pool_bytes", "gauge", &["{part=\"capacity\"} 107374182400", "{part=\"free\"} 53687091200"]),
    ])
}

fn edge(service: &str, requests: u32) -> String {
    let labels = format!("namespace=\"demo\",service=\"{service}\"");
    whole(&[
        of(
            "evroc_gateway_requests",
            "counter",
            &[&format!("_total{{{labels},response_code_class=\"2xx\"}} {requests}")],
        ),
        of("evroc_gateway_request_duration_seconds", "histogram", &[&format!("_count{{{labels}}} {requests}")]),
        of("evroc_gateway_replicas", "gauge", &[&format!("{{{labels},state=\"ready\"}} 1")]),
        of("evroc_gateway_cold_starts", "counter", &[&format!("_total{{{labels}}} 5")]),
    ])
}

#[test]
fn a_screen_shows_what_happened_between_two_readings() {
    let (before, now) = readings(
        vec![process("control", &control(1.0, 100, 0)), process("edge/h1", &edge("hello", 10))],
        vec![
            process("control", &control(1.5, 300, 2)),
            process("node/h1", &node()),
            process("edge/h1", &edge("hello", 30)),
            Process { name: "node/h2".into(), samples: Err("it is not connected: is it running?".into()) },
        ],
    );
    let want = "\
PROCESS  CPU     MEMORY  FILES  THREADS
control  25.0 %  50 MiB  40     9
node/h1  0.0 %   0 MiB   0      0
edge/h1  0.0 %   0 MiB   0      0
node/h2  it is not connected: is it running?

API    101.0 requests/s, p99 1.0 ms, 1.0 errors/s, 2 in flight, 31 watches, 0.0 refused/s
STORE  0.0 transactions/s, p99 -, 0.0 syncs/s, 4 objects, 0.0 MiB, revision 0

CONTROLLER  QUEUE  RUNS/S  P99  ERRORS/S
disk        4      100.0   -    0.0

HOST h1
  guests      1 failed, 2 running
  containers  none
  promised    1024 MiB of memory; disk for volumes: 50.0 GiB free of 100.0 GiB

SERVICE     REQUESTS/S  P99  ERRORS/S  REPLICAS  IN FLIGHT  WAITING  COLD STARTS
demo/hello  10.0        -    0.0       1         0          0        5
";
    assert_eq!(screen(&before, &now), want);
}

#[test]
fn names_do_not_control_the_terminal() {
    let hostile = edge("a\u{1b}]0;x\u{7}\u{202e}", 1);
    let mut away = Process { name: "node/\u{1b}[2J".into(), samples: Err("\u{9b}31m".into()) };
    let (before, now) = readings(vec![], vec![process("control", "# EOF\n"), process("edge/h", &hostile), away]);
    let text = screen(&before, &now);
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    assert!(text.contains("demo/a?]0;x??") && text.contains("node/?[2J"), "{text}");
    away = Process { name: "control".into(), samples: Ok(vec![]) };
    let (before, now) = readings(vec![], vec![away]);
    assert!(screen(&before, &now).starts_with("PROCESS"));
}

#[test]
fn rates_and_quantiles_are_those_between_the_readings() {
    let histogram = |counts: [u32; 3]| {
        let lines = [("0.1", counts[0]), ("0.2", counts[1]), ("+Inf", counts[2])];
        let lines = lines.map(|(le, count)| format!("_bucket{{le=\"{le}\"}} {count}"));
        read(&whole(&[of("h", "histogram", &lines.each_ref().map(String::as_str))])).expect("OpenMetrics")
    };
    for (before, now, quantile, want) in [
        ([0, 0, 0], [10, 10, 10], 0.5, Some(0.05)),
        ([10, 10, 10], [10, 20, 20], 0.5, Some(0.15)),
        ([0, 0, 0], [0, 0, 10], 0.99, Some(0.2)),
        ([5, 5, 5], [5, 5, 5], 0.99, None),
        // Restarted: it counts from zero.
        ([50, 50, 50], [10, 10, 10], 0.5, Some(0.05)),
    ] {
        let (before, now) = (histogram(before), histogram(now));
        let found = Figures { before: &before, now: &now, seconds: 1.0 }.quantile(quantile, "h", &[]);
        let is_same = found.zip(want).map_or(found == want, |(found, want)| (found - want).abs() < 1e-9);
        assert!(is_same, "{found:?} {want:?}");
    }
    let counter = |value| read(&whole(&[of("c", "counter", &[&format!("_total {value}")])])).expect("OpenMetrics");
    for (before, now, want) in [(10, 14, 2.0), (10, 10, 0.0), (10, 4, 2.0)] {
        let (before, now) = (counter(before), counter(now));
        assert_eq!(Figures { before: &before, now: &now, seconds: 2.0 }.rate("c_total", &[]), want);
    }
}
