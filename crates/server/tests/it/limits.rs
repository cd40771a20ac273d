//! Bounds on requests, and how a server ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::raw::{self, get};
use crate::statement::{Place, heartbeat};
use crate::system::System;

/// An append that waits, because no witness runs: it is being worked on when others are refused.
fn waiting_append(system: &System) -> thread::JoinHandle<raw::Response> {
    let entry = heartbeat(&Place::vendor(), &system.key("vendor", "recorder")).to_bytes();
    let address = system.vendor.address();
    let append = thread::spawn(move || {
        loop {
            let answer = raw::post(address, "/v1/entries", &entry);
            // The look below may itself be the one request that is worked on.
            if !answer.error().starts_with("503 busy") {
                return answer;
            }
        }
    });
    while get(address, "/healthz").status == 200 {
        assert!(!append.is_finished(), "the append was over before it was seen");
    }
    append
}

fn one_request_at_a_time() -> System {
    let mut system = System::made();
    system.set("vendor", "requests_max = 1024", "requests_max = 1");
    system.vendor.start();
    system
}

#[test]
fn more_requests_than_are_worked_on_are_told_to_come_back() {
    let system = one_request_at_a_time();
    let append = waiting_append(&system);
    let busy = get(system.vendor.address(), "/healthz");
    assert_eq!(busy.error(), "503 busy: more requests at once than are worked on");
    assert_eq!(busy.header("retry-after"), Some("1"));
    assert!(append.join().unwrap().error().starts_with("503 not-witnessed"));
    assert_eq!(get(system.vendor.address(), "/healthz").status, 200);
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut system = one_request_at_a_time();
    let append = waiting_append(&system);
    system.vendor.terminate();
    assert!(append.join().unwrap().error().starts_with("503 not-witnessed"));
    let done = system.vendor.wait();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("stopping"), "{done:?}");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let mut system = System::made();
    system.set("w1", "timeout_s = 60", "timeout_s = 1");
    system.witnesses[0].start();
    let address = system.witnesses[0].address();
    let slow = raw::send(
        address,
        b"POST /add-checkpoint HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 9\r\n\r\nold",
    );
    assert_eq!(slow.error(), "503 timeout: the request took more than 1 s");

    // Many that say nothing do not keep others out.
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    assert_eq!(get(address, "/healthz").status, 200);
    drop(silent);
}

/// Reads the head of an answer.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn who_is_answered_before_its_body_has_come_is_told_that_the_connection_ends() {
    let system = System::running();
    let connected = || {
        let stream = TcpStream::connect(system.vendor.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let closes = |head: &str| head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
    // Nothing is there, whatever the body says.
    let mut stream = connected();
    stream.write_all(b"POST /v1/nothing HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n").unwrap();
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 404") && closes(&answer), "{answer}");
    // Head and body come one after the other, as clients send them: what answers has read both, and goes on.
    let mut stream = connected();
    for _ in 0..2 {
        let path = "/v1/streams/data/vendor";
        stream.write_all(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(get(system.vendor.address(), "/healthz").status, 200);
        stream.write_all(b"null").unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200") && !closes(&answer), "{answer}");
        let length = answer.to_ascii_lowercase().split_once("content-length: ").unwrap().1.to_owned();
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
    }
}
