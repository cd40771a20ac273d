//! One query on three workers, by the programs that users run; and what becomes of it when one of them is killed, or is
//! somebody else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use attest::{AccessIntent, Bundle, Ended};
use stdx::durable;
use testkit::{OPEN_CLASS, PURPOSE, REGION};

use super::gateway::{Desk, QUERY_FILE};
use super::relay::Relay;
use super::scene::Scene;
use super::through::{COUNTED, program, sealed, sealed_as, start, started_in, with_three_workers};
use crate::process::{Server, spawn};
use crate::raw;

/// Three workers behind relays, the last on a host of its own, and six objects.
struct Yard {
    desk: Desk<()>,
    workers: Vec<Server>,
    relays: Vec<Relay>,
}

const ALL: &str = "country,rule,events\nDE,a_marked_rule,9\nJP,a_marked_rule,12\n";

const FEW: [(&str, usize); 2] = [("DE", 3), ("JP", 2)];
const MORE: [(&str, usize); 4] = [("DE", 4), ("JP", 5), ("DE", 2), ("JP", 5)];

impl Yard {
    fn running() -> Self {
        let mut yard = Self::with_few();
        yard.take(&MORE);
        yard
    }

    fn take(&mut self, batches: &[(&str, usize)]) {
        let batches = batches.iter().map(|(country, count)| sealed(&self.desk, country, *count));
        self.desk.scene.keep(&batches.collect::<Vec<_>>());
    }

    fn with_few() -> Self {
        let mut relays = Vec::new();
        let (desk, workers) = with_three_workers(Scene::made(), |workers| {
            relays.extend(workers.iter().map(|worker| Relay::to(worker.address())));
            relays.iter().map(|relay| relay.url.clone()).collect()
        });
        durable::write(&desk.scene.system.file(QUERY_FILE), COUNTED.as_bytes()).unwrap();
        let mut yard = Self { desk, workers, relays };
        yard.take(&FEW);
        yard
    }

    fn request(&self) -> String {
        let request = self.desk.request_for(8);
        self.desk.approve(&request);
        request
    }

    fn read(&self) -> crate::process::Done {
        self.desk.data("query", "reader", &[&self.request(), "--format", "csv"])
    }

    /// As many workers as the last intent names.
    fn named(&self) -> usize {
        self.desk.logged::<AccessIntent>().last().unwrap().1.predicate.workers.keys().len()
    }
}

#[test]
fn a_request_that_stands_is_read_by_several_as_often_as_it_may_be() {
    let mut yard = Yard::with_few();
    let batch = |files: u64| {
        let line = format!(
            "{{\"id\":\"{files:032x}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{{\"statistic\":{{\"of\":\"scans\",\
             \"tally\":{{\"files\":{files},\"found\":0}}}}}}}}\n"
        );
        sealed_as(&yard.desk, OPEN_CLASS, "DE", &line)
    };
    let batches = [5, 7, 11, 13].map(batch).to_vec();
    yard.desk.scene.keep(&batches);
    let query = "select counted, sum(files) as files from statistics group by counted\n";
    durable::write(&yard.desk.scene.system.file(QUERY_FILE), query.as_bytes()).unwrap();
    let scene = &yard.desk.scene;
    let said = |arguments: &[&str]| {
        let said = Command::new(program()).current_dir(scene.system.path()).args(arguments).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    };
    let (code, schema) = (said(&["code"]), said(&["schema", "--class", OPEN_CLASS, QUERY_FILE]));
    let asked = ["--query", QUERY_FILE, "--reader", "a service", "--ticket", "OPS-2", "--class", OPEN_CLASS];
    let of = ["--country", "DE", "--objects", "8", "--purpose", PURPOSE, "--service"];
    let stands = ["--uses", "2", "--schema", &schema, "--code", &code];
    let request = yard.desk.data("request", "reader", &[&asked[..], &of, &stands].concat()).ok().json();
    let request = request["id"].as_str().unwrap();
    yard.desk.approve(request);
    let read = || yard.desk.data("query", "reader", &[request, "--format", "csv"]);
    for _ in 0..2 {
        assert_eq!((read().ok().stdout.as_str(), yard.named()), ("counted,files\nscans,36\n", 3));
    }
    assert_eq!(read().code, 1, "twice, and not more often");
    assert_eq!(yard.desk.outcomes().iter().filter(|(ended, ..)| *ended == Ended::Done).count(), 2);
    yard.desk.settled();
}

#[test]
fn a_host_that_was_stopped_is_left_out_until_it_is_not() {
    let yard = Yard::running();
    let enrolment = std::fs::read_to_string(yard.desk.scene.system.file("enrolment-2")).unwrap();
    let other = Bundle::parse(enrolment.as_bytes()).unwrap().entries()[0].envelope.id().to_string();
    assert_eq!((yard.read().ok().stdout, yard.named()), (ALL.to_owned(), 3));
    yard.desk.scene.supervisor_data(&["stop", REGION, "--worker", &other]).ok();
    assert_eq!((yard.read().ok().stdout, yard.named()), (ALL.to_owned(), 2));
    yard.desk.scene.supervisor_data(&["stop", REGION, "--worker", &yard.desk.scene.enrolment.to_string()]).ok();
    let refused = yard.read();
    assert!(refused.code == 1 && refused.stderr.contains("the region's workers are stopped"), "{}", refused.stderr);
    yard.desk.scene.supervisor_data(&["resume", REGION, "--worker", &other]).ok();
    assert_eq!((yard.read().ok().stdout, yard.named()), (ALL.to_owned(), 1));
    yard.desk.settled();
}

/// Says again what was said, and hears how the answer begins.
fn said_again(to: SocketAddr, asked: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(asked).unwrap();
    let mut heard = vec![0; 64];
    let count = stream.read(&mut heard).unwrap();
    String::from_utf8_lossy(&heard[..count]).into_owned()
}

#[test]
fn three_workers_read_one_query_and_what_they_said_is_worth_nothing_to_others() {
    let mut yard = Yard::with_few();
    // Fewer objects than workers are read by one.
    assert_eq!(yard.read().ok().stdout, "country,rule,events\nDE,a_marked_rule,3\nJP,a_marked_rule,2\n");
    assert_eq!(yard.named(), 1);
    yard.take(&MORE);
    assert_eq!(yard.read().ok().stdout, ALL);
    assert_eq!((yard.named(), yard.desk.logged::<AccessIntent>()[1].1.predicate.budget.objects), (3, 6));
    assert_eq!(yard.desk.outcomes()[1], (Ended::Done, 2, ALL.len() as u64));
    yard.desk.settled();
    // All of them took part: each was brought the grant, and the others were asked by the first.
    let asked: Vec<Vec<Vec<u8>>> = yard.relays.iter().map(Relay::posted).collect();
    let begins = |at: usize, with: &[u8]| asked[at].iter().filter(|it| it.starts_with(with)).count();
    assert!((0..3).all(|at| begins(at, b"POST /v1/run") == 1 + usize::from(at == 0)));
    assert!((1..3).all(|at| begins(at, b"POST /v1/hops") > 0));
    let mark = b"a_marked_rule";
    let all = asked.iter().flatten();
    assert!(!all.clone().any(|it| it.windows(mark.len()).any(|it| it == mark)), "nothing goes in the open");
    // A fourth worker of the same host, and the same ones again: nobody takes it.
    let fourth = started_in(&yard.desk.scene, "worker-4");
    for recorded in all.filter(|it| !it.starts_with(b"POST /v1/plan")) {
        for worker in yard.workers.iter().chain([&fourth]) {
            let heard = said_again(worker.address(), recorded);
            assert!(heard.starts_with("HTTP/1.1 422"), "{heard}");
        }
    }
}

#[test]
fn a_worker_that_is_killed_in_the_middle_of_a_query_is_named_and_the_living_answer_the_next_one() {
    for killed in [1, 0] {
        let mut yard = Yard::running();
        let request = yard.request();
        let (arrives, goes) = yard.relays[if killed == 0 { 1 } else { killed }].hold();
        let key = "vendor/keys/reader.key";
        let query = ["data", "query", "--config", "vendor/clerestory.toml", "--key", key, &request];
        let command = spawn(yard.desk.scene.system.path(), &query);
        arrives.recv_timeout(Duration::from_secs(60)).unwrap();
        yard.workers[killed].kill();
        yard.relays[killed].close();
        drop(goes);
        let done = command.wait_with_output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), &done.stdout[..]), (Some(1), &b""[..]), "{said}");
        let named = format!("worker {} of the intent", killed + 1);
        assert!(said.contains("what came is not all of it") && said.contains(&named), "{said}");
        assert!(said.contains("asked again, it goes to the workers that answer"), "{said}");
        assert_eq!((yard.named(), yard.desk.outcomes()[0].0), (3, Ended::Failed));
        yard.desk.settled();
        // The living are asked next, and what comes is all of it.
        assert_eq!(yard.read().ok().stdout, ALL);
        assert_eq!((yard.named(), yard.desk.outcomes()[1].0), (2, Ended::Done));
        // Back again, it has another key, and takes part.
        start(&mut yard.workers[killed]);
        yard.relays[killed].redirect(yard.workers[killed].address());
        assert_eq!((yard.read().ok().stdout, yard.named()), (ALL.to_owned(), 3));
        yard.desk.settled();
    }
}

#[test]
fn a_stranger_at_a_workers_address_is_no_worker() {
    let mut yard = Yard::running();
    let presented = raw::get(yard.workers[2].address(), "/v1/worker").body;
    yard.workers[2].kill();
    // It says what the worker has said of itself, takes the grant, and answers every worker with nonsense.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    yard.relays[2].redirect(listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|client| nonsense(client.unwrap(), &presented)));
    let read = yard.read();
    assert_eq!((read.code, read.stdout.as_str()), (1, ""), "{}", read.stderr);
    assert!(read.stderr.contains("in the place of worker 3 of the intent is not that worker"), "{}", read.stderr);
    assert_eq!((yard.named(), yard.desk.outcomes()[0].0), (3, Ended::Failed));
    yard.desk.settled();
}

fn nonsense(mut client: TcpStream, presented: &[u8]) {
    let presented = presented.to_vec();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let count = client.read(&mut buffer).unwrap_or(0);
        let head = String::from_utf8_lossy(&buffer[..count.min(64)]).into_owned();
        let answer = |body: &[u8]| {
            [format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body]
                .concat()
        };
        let _ = if head.starts_with("GET /v1/worker") {
            client.write_all(&answer(&presented))
        } else if head.starts_with("POST /v1/run") {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n")
        } else {
            client.write_all(&answer(&[7; 1168]))
        };
        // Until the other has gone.
        while matches!(client.read(&mut buffer), Ok(1..)) {}
    });
}
