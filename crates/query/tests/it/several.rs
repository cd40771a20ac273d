//! Several workers give what one gives.

use api::ResultFormat;
use attest::Standing;
use stdx::Digest;
use testkit::{APPROVED_CLASS, OPEN_CLASS};

use crate::crew::Crew;
use crate::scene::{CODE, Question, Scene, collected, detection, statistic};

const RULES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// So many objects, from two countries, each with other events; some of them are in several.
async fn with_objects(count: u64) -> Scene {
    let scene = Scene::new().await;
    let mut batches = Vec::new();
    for object in 0..count {
        let rows = 3 + object * 5 % 7;
        let event = |row: u64| detection(RULES[((object * 3 + row) % 5) as usize], object * 10 + row * 3 % 17);
        let country = if object % 2 == 0 { "DE" } else { "JP" };
        batches.push(scene.sealed(APPROVED_CLASS, country, (0..rows).map(event).collect::<String>()));
    }
    scene.take(&batches).await;
    scene
}

/// Each has a total order, or one row.
const QUERIES: &[&str] = &[
    "SELECT rule, size FROM detections ORDER BY rule, size",
    "SELECT count(*) AS n FROM detections",
    "SELECT country, rule, count(*) AS n, sum(size) AS s, min(size) AS a, max(size) AS b, avg(size) AS m \
     FROM detections GROUP BY country, rule ORDER BY country, rule",
    "SELECT count(DISTINCT rule) AS n, count(DISTINCT id) AS m, median(size) AS h FROM detections",
    "SELECT DISTINCT rule FROM detections ORDER BY rule",
    "SELECT rule, size FROM detections ORDER BY size DESC, rule LIMIT 3",
    "SELECT rule, size FROM detections ORDER BY size, rule LIMIT 4 OFFSET 2",
    "SELECT rule, count(*) AS n FROM detections GROUP BY rule ORDER BY n DESC, rule LIMIT 2",
    "SELECT rule, count(*) AS n FROM detections GROUP BY rule HAVING count(*) > 2 ORDER BY rule",
    "SELECT a.rule, b.size FROM detections a JOIN detections b ON a.rule = b.rule AND a.size < b.size \
     ORDER BY a.rule, b.size",
    "SELECT a.rule, a.size, b.size AS other FROM detections a LEFT JOIN detections b ON a.size + 1 = b.size \
     ORDER BY a.size, a.rule, other",
    "SELECT b.rule, b.size, a.size AS other FROM detections a RIGHT JOIN detections b ON a.size = b.size + 3 \
     ORDER BY b.size, b.rule, other",
    "SELECT a.size AS x, b.size AS y FROM detections a FULL JOIN detections b ON a.size = b.size + 2 ORDER BY x, y",
    "SELECT count(*) AS n FROM detections a CROSS JOIN detections b",
    "SELECT count(*) AS n, max(b.size) AS m FROM detections a JOIN detections b ON a.size < b.size",
    "SELECT count(*) AS n, count(a.size) AS a, count(b.size) AS b FROM detections a FULL JOIN detections b \
     ON a.size > b.size + 20",
    "SELECT rule, size FROM detections WHERE id IN (SELECT id FROM detections WHERE country = 'JP') ORDER BY rule, size",
    "SELECT rule, size FROM detections WHERE size NOT IN (SELECT size FROM detections WHERE rule = 'one') \
     ORDER BY rule, size",
    "SELECT a.rule, a.size FROM detections a WHERE EXISTS (SELECT 1 FROM detections b WHERE b.size = a.size + 3) \
     ORDER BY a.rule, a.size",
    "SELECT rule, size FROM detections WHERE size > (SELECT avg(size) FROM detections) ORDER BY rule, size",
    "SELECT rule, size, row_number() OVER (PARTITION BY rule ORDER BY size, country) AS n FROM detections \
     ORDER BY rule, size, n",
    "SELECT rule, size, rank() OVER (ORDER BY size) AS r, sum(size) OVER () AS s FROM detections ORDER BY size, rule",
    "SELECT size, lag(size) OVER (ORDER BY size) AS before FROM detections ORDER BY size, before",
    "SELECT rule FROM detections WHERE size < 9 UNION SELECT rule FROM detections WHERE size > 30 ORDER BY rule",
    "SELECT rule, size FROM detections UNION ALL SELECT rule, size FROM detections WHERE size > 20 ORDER BY rule, size",
    "SELECT rule FROM detections UNION ALL SELECT 'a word' AS rule ORDER BY rule",
    "SELECT country, rule, count(*) AS n FROM detections GROUP BY ROLLUP (country, rule) ORDER BY country, rule, n",
    "WITH t AS (SELECT rule, max(size) AS top FROM detections GROUP BY rule) \
     SELECT a.rule, b.rule AS other FROM t a JOIN t b ON a.top <= b.top ORDER BY a.rule, other",
    "SELECT d.rule, v.n, d.size FROM detections d JOIN (VALUES ('one', 1), ('two', 2)) AS v (word, n) \
     ON d.rule = v.word ORDER BY d.rule, d.size",
    "SELECT string_agg(rule, ',' ORDER BY rule, size) AS all_of_them FROM detections",
    "SELECT date_trunc('day', hour) AS day, CASE WHEN size > 9 THEN upper(rule) ELSE 'small' END AS word, \
     count(*) AS n FROM detections GROUP BY day, word ORDER BY day, word",
    "SELECT rule, size FROM detections WHERE rule LIKE '%o%' AND sha256 <> 'x' AND country IN ('DE', 'JP') \
     ORDER BY rule, size",
    "SELECT upper(rule) AS name, count(*) AS n FROM detections WHERE regexp_like(rule, '^(t|f)') GROUP BY name \
     ORDER BY name",
    "SELECT count(*) AS n, count(*) FILTER (WHERE size > 9) AS big, approx_distinct(rule) AS rules, \
     round(stddev(size), 3) AS d FROM detections",
    "SELECT rule, size FROM (SELECT rule, size, row_number() OVER (PARTITION BY rule ORDER BY size, id) AS n \
     FROM detections) WHERE n <= 2 ORDER BY rule, size",
    "SELECT a.rule, a.size, (SELECT count(*) FROM detections b WHERE b.rule = a.rule) AS n FROM detections a \
     ORDER BY a.rule, a.size",
    "SELECT rule, first_value(size ORDER BY size) AS a, last_value(size ORDER BY size) AS b FROM detections \
     GROUP BY rule ORDER BY rule",
    "SELECT rule, size, sum(size) OVER (PARTITION BY rule ORDER BY size ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s \
     FROM detections ORDER BY rule, size, s",
    "SELECT count(*) AS n FROM (SELECT rule FROM detections LIMIT 5)",
    "SELECT 'a word' AS word FROM detections LIMIT 4",
    "SELECT country, rule, count(*) AS n FROM detections GROUP BY GROUPING SETS ((country), (rule), ()) \
     ORDER BY country, rule, n",
    "SELECT rule FROM detections WHERE country = 'DE' AND size > 2 ORDER BY rule",
    "SELECT rule FROM detections WHERE size > 100000 ORDER BY rule",
    "SELECT count(*) AS n, max(size) AS m FROM detections WHERE size > 100000",
    "SELECT rule, count(*) AS n FROM detections WHERE size > 100000 GROUP BY rule ORDER BY rule",
];

/// Long and deep, each in its own way.
fn deep() -> Vec<String> {
    let nested = |count| {
        (0..count).fold("size".to_owned(), |inner, n| format!("CASE WHEN size = {n} THEN {n} ELSE {inner} END"))
    };
    let of = |count: usize, with: &str| (0..count).map(|n| format!("size = {n}")).collect::<Vec<_>>().join(with);
    let selects = |count| {
        (0..count).fold("detections".to_owned(), |inner, n| format!("(SELECT * FROM {inner} WHERE size <> {n})"))
    };
    let united = |count: usize| {
        (0..count).map(|n| format!("SELECT {n} + size AS x FROM detections")).collect::<Vec<_>>().join(" UNION ALL ")
    };
    vec![
        format!("SELECT rule FROM detections WHERE {} ORDER BY rule", of(120, " OR ")),
        format!("SELECT count(*) AS n FROM detections WHERE NOT ({})", of(100, " AND NOT ")),
        format!("SELECT sum({}) AS s FROM detections", nested(20)),
        format!("SELECT sum({}) AS s FROM detections", vec!["size"; 200].join(" + ")),
        format!("SELECT sum(size{}) AS s FROM detections", " + size - 1".repeat(20)),
        format!("SELECT count(*) AS n FROM {}", selects(15)),
        format!("SELECT sum(x) AS s, count(*) AS n FROM ({})", united(30)),
    ]
}

/// Of all queries the first, and then each so many.
async fn all_equal(scene: &mut Scene, workers: usize, step: usize) {
    let crew = Crew::of(scene, workers).await;
    let mut others = Vec::new();
    for text in QUERIES.iter().map(|it| (*it).to_owned()).chain(deep()).step_by(step) {
        let question = Question::of(APPROVED_CLASS, &text);
        let one = scene.ask(&question).await;
        assert_eq!((one.1.failed.as_ref(), one.1.workers), (None, 1), "{text}");
        let several = crew.ask(scene, &question).await;
        if (several.1.failed.as_ref(), several.1.workers, &several.0) != (None, workers as u64, &one.0) {
            others.push((text, one, several));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_read_seven_objects_like_one() {
    all_equal(&mut with_objects(7).await, 3, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_read_four_objects_like_one() {
    all_equal(&mut with_objects(4).await, 3, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_read_three_objects_like_one() {
    all_equal(&mut with_objects(3).await, 2, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_without_objects_read_nothing_and_all_is_read() {
    all_equal(&mut with_objects(1).await, 3, 7).await;
    all_equal(&mut with_objects(2).await, 4, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_lines_are_read_together() {
    let mut scene = with_objects(4).await;
    assert_eq!(scene.compact(APPROVED_CLASS).await, 1);
    let more: Vec<_> = (0..3).map(|n| scene.sealed(APPROVED_CLASS, "JP", detection("six", 50 + n))).collect();
    scene.take(&more).await;
    all_equal(&mut scene, 3, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_reads_its_own_slice_and_no_other_whatever_the_query_joins() {
    let mut scene = with_objects(7).await;
    for text in [
        "SELECT count(*) AS n FROM detections",
        "SELECT count(*) AS n FROM detections a JOIN detections b ON a.size = b.size",
    ] {
        let crew = Crew::of(&scene, 3).await;
        let question = Question::of(APPROVED_CLASS, text);
        let plan = scene.plan(&question).await.unwrap();
        assert_eq!(crew.ask(&mut scene, &question).await.1.failed, None);
        let read: Vec<_> = (0..3).map(|place| crew.read_by(place, &plan)).collect();
        assert_eq!(read, [vec![0, 1], vec![2, 3], vec![4, 5, 6]], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_go_from_worker_to_worker_is_planned_for_one() {
    let mut scene = with_objects(4).await;
    let plan = async |text: &str| scene.plan(&Question::of(APPROVED_CLASS, text)).await.unwrap();
    for text in &QUERIES[..20] {
        assert!(!plan(text).await.is_for_one, "{text}");
    }
    assert!(
        plan("SELECT v.n FROM detections d JOIN (VALUES ('one', 1)) AS v (word, n) ON d.rule = v.word")
            .await
            .is_for_one
    );
    // Deeper than what is read of another worker's.
    let long = format!("SELECT sum(size{}) AS s FROM detections", " + size - 1".repeat(60));
    assert!(plan(&long).await.is_for_one);
    // Who has it shared all the same is told.
    let crew = Crew::of(&scene, 2).await;
    let (answer, end) = crew.ask(&mut scene, &Question::of(APPROVED_CLASS, &long)).await;
    assert_eq!(answer, "");
    assert_eq!(
        end.failed.as_ref().map(|it| &*it.message),
        Some("worker 2 of the intent can't make out its part of the plan")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_read_is_counted_over_all_workers() {
    let mut scene = with_objects(2).await;
    let odd: Vec<_> = (0..3).map(|_| scene.sealed(APPROVED_CLASS, "DE", "no event")).collect();
    scene.take(&odd).await;
    let wrongly = testkit::sealed_wrongly(|| scene.sealed(APPROVED_CLASS, "DE", "no event"));
    scene.take(&wrongly.map(Into::into)).await;
    let crew = Crew::of(&scene, 3).await;
    let question = Question::of(APPROVED_CLASS, "SELECT count(*) AS n FROM detections");
    let (one, end) = scene.ask(&question).await;
    assert_eq!(end.unreadable, 6);
    let (several, end) = crew.ask(&mut scene, &question).await;
    assert_eq!((several, end.unreadable, end.workers), (one, 6, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_values_formats_and_standing_requests_hold_for_all_together() {
    let mut scene = with_objects(4).await;
    let crew = Crew::of(&scene, 2).await;
    let mut question = Question::of(APPROVED_CLASS, "SELECT rule, size FROM detections ORDER BY size");
    question.rows = 3;
    let (answer, end) = crew.ask(&mut scene, &question).await;
    assert_eq!((answer.as_str(), end.rows), ("", 0));
    assert!(end.failed.unwrap().message.contains("budget of the intent is used up: rows"));
    question.text = "SELECT size FROM detections WHERE rule = $rule ORDER BY size".to_owned();
    question.rows = 1000;
    question.parameters.insert("rule".to_owned(), api::Parameter::Text("two".to_owned()));
    for format in [ResultFormat::Csv, ResultFormat::Json, ResultFormat::Table, ResultFormat::Arrow] {
        question.format = format;
        let plan = scene.plan(&question).await.unwrap();
        let request = scene.granted(&question, &plan).await;
        let one = collected(scene.worker.run(request).await.unwrap()).await.0;
        let request = crew.granted(&mut scene, &question, &plan).await;
        let brought = crew.held(request).await;
        assert_eq!(collected(crew.lead(&brought).await.unwrap()).await.0, one);
    }
    scene
        .take(&[
            scene.sealed(OPEN_CLASS, "DE", statistic("scans", 5, 1)),
            scene.sealed(OPEN_CLASS, "JP", statistic("scans", 7, 0)),
        ])
        .await;
    let mut question = Question::of(OPEN_CLASS, "SELECT counted, sum(files) AS files FROM statistics GROUP BY counted");
    let schema = scene.plan(&question).await.unwrap().schema;
    question.standing = Some(Standing { code: Digest::of(CODE), schema, uses: 3 });
    assert_eq!(crew.ask(&mut scene, &question).await.0, "counted,files\nscans,12\n");
    question.standing = Some(Standing { code: Digest::of(CODE), schema: Digest::of(b"another"), uses: 3 });
    let plan = scene.plan(&question).await.unwrap();
    let request = crew.granted(&mut scene, &question, &plan).await;
    for worker in crew.workers.iter().rev() {
        let refused = worker.run(request.clone()).await.unwrap_err();
        assert!(matches!(refused, query::WorkerError::Schema { .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_memory_stops_and_two_at_once_do_not_meet() {
    let mut scene = Scene::new().await;
    let lines =
        |object: u64| (0..500).map(|row| detection(&"rule ".repeat(20), object * 500 + row)).collect::<String>();
    let batches: Vec<_> = (0..4).map(|object| scene.sealed(APPROVED_CLASS, "DE", lines(object))).collect();
    scene.take(&batches).await;
    let crew = Crew::of(&scene, 2).await;
    // Four million rows are more than a query may have in memory.
    let text = "SELECT concat(a.rule, b.rule) AS x FROM detections a CROSS JOIN detections b ORDER BY x";
    let (_, end) = crew.ask(&mut scene, &Question::of(APPROVED_CLASS, text)).await;
    assert!(end.failed.as_ref().unwrap().message.contains("needs more memory"), "{end:?}");
    // As many as a worker runs, at the same time; by others, since what has ended lets go a moment later.
    let question =
        Question::of(APPROVED_CLASS, "SELECT count(*) AS n FROM detections a JOIN detections b ON a.size = b.size");
    let plan = scene.plan(&question).await.unwrap();
    for _ in 0..3 {
        let crew = Crew::of(&scene, 2).await;
        let (one, other) =
            (crew.granted(&mut scene, &question, &plan).await, crew.granted(&mut scene, &question, &plan).await);
        let (one, other) = (crew.held(one).await, crew.held(other).await);
        let both = [crew.lead(&one).await.unwrap(), crew.lead(&other).await.unwrap()];
        for (answer, end) in futures::future::join_all(both.map(collected)).await {
            assert_eq!((&answer[..], end.failed), (&b"n\n2000\n"[..], None));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_another_worker_is_told_without_what_it_read() {
    let mut scene = with_objects(3).await;
    let crew = Crew::of(&scene, 3).await;
    for text in ["SELECT CAST(rule AS BIGINT) AS n FROM detections", "SELECT 1 / (size - size) AS n FROM detections"] {
        let (answer, end) = crew.ask(&mut scene, &Question::of(APPROVED_CLASS, text)).await;
        let failed = end.failed.unwrap().message;
        assert!(answer.is_empty() && failed.contains("a value does not allow"), "{failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_anew_is_written_by_one() {
    let mut scene = with_objects(2).await;
    let crew = Crew::of(&scene, 2).await;
    let question = scene.compaction(APPROVED_CLASS);
    let plan = scene.plan(&question).await.unwrap();
    let request = crew.granted(&mut scene, &question, &plan).await;
    for worker in &crew.workers {
        let refused = worker.run(request.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("is written by one"), "{refused}");
    }
}
