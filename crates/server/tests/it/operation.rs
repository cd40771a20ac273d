//! A process as its operator sees it: readiness, numbers, log lines, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::raw::{self, get};
use crate::statement::{Place, heartbeat};
use crate::system::System;

/// What a process says on standard error, line by line, as JSON.
struct Lines(BufReader<ChildStderr>);

impl Lines {
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The address of the next listener that is opened.
    fn address(&mut self) -> SocketAddr {
        loop {
            let line = self.next().unwrap();
            if let Some(address) = line["fields"]["http.address"].as_str() {
                return address.parse().unwrap();
            }
        }
    }
}

fn serve(config: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory"));
    command.env_clear().args(["--log-format", "json", "serve", "--config", config]);
    command
}

/// The samples in a page of numbers, as an independent parser reads them.
fn samples(page: &str) -> Value {
    let mut parser = testkit::foreign::scraper("metrics.py");
    let mut child = parser.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{page}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sum(samples: &Value, name: &str, labels: &[(&str, &str)]) -> f64 {
    let found = samples
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["name"] == name && labels.iter().all(|(label, value)| it["labels"][*label] == *value));
    found.map(|it| it["value"].as_f64().unwrap()).sum()
}

#[test]
fn numbers_move_and_an_independent_parser_reads_them() {
    let mut system = System::made();
    for name in ["vendor", "supervisor", "w1"] {
        system.set(name, "# metrics = \"127.0.0.1:9464\"", "metrics = \"127.0.0.1:0\"");
    }
    system.witnesses.iter_mut().skip(1).for_each(crate::process::Server::start);
    let config = system.witnesses[0].config().to_owned();
    system.witnesses[0].start_as(serve(&config));
    let config = system.vendor.config().to_owned();
    system.vendor.start_as(serve(&config));
    let mut lines = Lines(BufReader::new(system.vendor.stderr()));
    let first = lines.address();
    let numbers = if first == system.vendor.address() { lines.address() } else { first };

    let page = || samples(&get(numbers, "/metrics").text());
    let before = page();
    system.beat(&Place::vendor());
    // The answer comes before the step is counted.
    let after = loop {
        let after = page();
        if sum(&after, "clerestory_log_signed_entries", &[]) >= 1.0 {
            break after;
        }
    };
    let moved = |name: &str, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
    let route = [("route", "/v1/entries"), ("method", "POST"), ("status", "200")];
    assert_eq!(moved("clerestory_http_requests_total", &route), 1.0);
    assert_eq!(moved("clerestory_http_request_seconds_count", &route[..1]), 1.0);
    assert_eq!(moved("clerestory_log_published_entries", &[]), 1.0);
    assert!(moved("clerestory_log_step_seconds_count", &[("outcome", "published")]) >= 1.0);
    assert!(moved("clerestory_witness_answers_total", &[("request", "add-checkpoint"), ("outcome", "ok")]) >= 3.0);
    assert_eq!(sum(&after, "clerestory_ready", &[]), 1.0);
    for name in ["process_memory_bytes", "process_open_files", "disk_free_bytes", "disk_size_bytes"] {
        assert!(sum(&after, &format!("clerestory_{name}"), &[]) > 0.0, "{name}");
    }
    // The witness counts by log, and a log that it does not know is no label of its own.
    let mut witness = Lines(BufReader::new(system.witnesses[0].stderr()));
    let first = witness.address();
    let theirs = if first == system.witnesses[0].address() { witness.address() } else { first };
    raw::post(system.witnesses[0].address(), "/add-checkpoint", b"old 0\n\nnonsense");
    let found = samples(&get(theirs, "/metrics").text());
    let cosigned = [("log", "vendor.example/log"), ("outcome", "cosigned")];
    assert!(sum(&found, "clerestory_cosignatures_total", &cosigned) >= 1.0, "{found}");
    assert_eq!(sum(&found, "clerestory_cosignatures_total", &[("log", "other"), ("outcome", "refused")]), 1.0);

    // The numbers are on their own address only, and nothing else is there.
    assert_eq!(get(system.vendor.address(), "/metrics").status, 404);
    assert_eq!(get(numbers, "/checkpoint").status, 404);
    // Whatever paths clients ask for, the page does not grow by them.
    for path in ["/a", "/b", "/channel/c"] {
        get(system.vendor.address(), path);
    }
    let text = get(numbers, "/metrics").text();
    assert!(!text.contains("\"/a\"") && !text.contains("/channel/c"), "{text}");
}

#[test]
fn alert_rules_are_yaml_with_what_a_rule_needs() {
    let rules = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/prometheus/alerts.yml");
    let mut parser = testkit::foreign::scraper("metrics.py");
    let names = testkit::foreign::succeed(parser.arg("--rules").arg(rules));
    assert!(serde_json::from_str::<Vec<String>>(&names).unwrap().len() >= 10, "{names}");
}

#[test]
fn readiness_says_what_is_missing() {
    let mut system = System::made();
    system.witnesses.iter_mut().take(2).for_each(crate::process::Server::start);
    system.vendor.start();
    let ready = || get(system.vendor.address(), "/readyz");
    let answer = ready();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["ready"], false);
    assert_eq!(said["reasons"][0]["part"], "log", "{said}");
    // The process itself is well, and a restart would help nobody.
    assert_eq!(get(system.vendor.address(), "/healthz").status, 200);

    let system = System::running();
    system.beat(&Place::vendor());
    let answer = get(system.vendor.address(), "/readyz");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"ready\":true,\"reasons\":[]}"));
    assert_eq!(get(system.witnesses[0].address(), "/readyz").status, 200);
    // This policy opens no stream for a status, so the supervisor can't publish any.
    let answer = get(system.supervisor.address(), "/readyz");
    assert!(answer.status == 503 && answer.text().contains("status/slow"), "{}", answer.text());
}

#[test]
fn the_service_manager_is_told() {
    let mut system = System::made();
    let path = system.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let config = system.witnesses[0].config().to_owned();
    // The watchdog is for one process by its id, which only that process knows before it starts.
    let mut command = Command::new("sh");
    let script = "export WATCHDOG_PID=$$; exec \"$0\" serve --config \"$1\"";
    command.env_clear().args(["-c", script, env!("CARGO_BIN_EXE_clerestory"), &config]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    system.witnesses[0].start_as(command);
    let told = || {
        let mut buffer = [0; 256];
        let read = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1\n");
    // It serves by then, and goes on saying that it lives.
    assert_eq!(get(system.witnesses[0].address(), "/healthz").status, 200);
    assert_eq!([told(), told()], ["WATCHDOG=1\n", "WATCHDOG=1\n"]);
    system.witnesses[0].terminate();
    while told() != "STOPPING=1\n" {}
    assert_eq!(system.witnesses[0].wait().code, 0);
}

#[test]
fn an_append_that_waits_is_told_to_come_back_when_the_process_stops() {
    let mut system = System::made();
    system.set("vendor", "append_wait_s = 2", "append_wait_s = 50");
    system.witnesses.iter_mut().for_each(crate::process::Server::start);
    system.vendor.start();
    let first = system.beat(&Place::vendor());
    // Without witnesses nothing is published, so the next one would wait for a long time.
    system.witnesses.iter_mut().for_each(crate::process::Server::kill);
    let envelope = heartbeat(&Place::vendor().after(&first), &system.key("vendor", "recorder"));
    let address = system.vendor.address();
    let body = envelope.to_bytes();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    let head = format!("POST /v1/entries HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    // Its connection is taken by the time that a later one is answered.
    assert_eq!(get(address, "/healthz").status, 200);
    system.vendor.terminate();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("not-witnessed"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 5"), "{answer}");
    assert_eq!(system.vendor.wait().code, 0);

    // It kept its place, or was never taken in; the same bytes go through now.
    system.witnesses.iter_mut().for_each(crate::process::Server::start);
    system.vendor.start();
    let again = system.append(&Place::vendor(), &envelope);
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(again.text().contains("\"index\":1"), "{}", again.text());
}

#[test]
fn appends_under_load_end_with_a_proof_or_a_word_and_a_second_signal_ends_at_once() {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    let (address, recorder) = (system.vendor.address(), system.key("vendor", "recorder"));
    // One writer in the stream, as fast as it goes, until it is told to go away.
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let writer = std::thread::spawn(move || {
        let (mut place, mut proofs) = (Place::vendor().after(&first), 0_u64);
        while !until.load(Ordering::SeqCst) {
            let envelope = heartbeat(&place, &recorder);
            let body = envelope.to_bytes();
            let Ok(mut stream) = TcpStream::connect(address) else { return proofs };
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let length = body.len();
            let head = format!("POST /v1/entries HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            let mut head = [0; 12];
            // Nobody takes connections any more: this one waits in the socket's queue.
            if stream.read_exact(&mut head).is_err() {
                return proofs;
            }
            match &head {
                b"HTTP/1.1 200" => proofs += 1,
                b"HTTP/1.1 503" => return proofs,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
            place = place.after(&envelope);
        }
        proofs
    });
    let published = |system: &System| -> u64 {
        get(system.vendor.address(), "/checkpoint").text().lines().nth(1).unwrap().parse().unwrap()
    };
    while published(&system) < 20 {}
    assert_eq!(system.vendor.stop().code, 0);
    // Answers what still waits in the socket's queue.
    is_over.store(true, Ordering::SeqCst);
    let config = system.vendor.config().to_owned();
    system.vendor.start_as(serve(&config));
    let proofs = writer.join().unwrap();
    // Every proof that was given is of an entry that is there.
    assert!(published(&system) > proofs, "{proofs}");
    system.run(&["fsck", "--config", "vendor/clerestory.toml"]).ok();

    // What was stopped in order leaves one file of its database.
    for server in [&mut system.supervisor, &mut system.witnesses[0]] {
        assert_eq!(server.stop().code, 0);
    }
    for name in ["supervisor", "w1"] {
        let folder = system.file(name);
        let left = ["state.sqlite-wal", "state.sqlite-shm"].map(|beside| folder.join(beside).exists());
        assert_eq!(left, [false, false], "{name}");
    }

    // A request that never ends holds the process for its grace; a second signal does not wait.
    system.set("vendor", "grace_s = 10", "grace_s = 600");
    assert_eq!(system.vendor.stop().code, 0);
    system.vendor.start_as(serve(&config));
    let mut lines = Lines(BufReader::new(system.vendor.stderr()));
    let mut endless = TcpStream::connect(system.vendor.address()).unwrap();
    endless.write_all(b"POST /v1/entries HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    assert_eq!(get(system.vendor.address(), "/healthz").status, 200);
    system.vendor.terminate();
    while lines.next().unwrap()["fields"]["message"] != "stopping" {}
    system.vendor.terminate();
    assert_eq!(system.vendor.wait().code, 0);
}
