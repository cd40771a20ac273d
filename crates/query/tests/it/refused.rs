//! What a query may not do; nothing was asked for then.

use testkit::{APPROVED_CLASS, OPEN_CLASS};

use crate::scene::{Question, Scene, detection};

async fn refused(scene: &Scene, class: &str, text: &str) -> String {
    match scene.plan(&Question::of(class, text)).await {
        Ok(plan) => panic!("`{text}` is planned: {:?}", plan.columns),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_select_from_the_classs_own_table_is_planned() {
    let scene = Scene::new().await;
    for text in [
        "",
        "SELEC 1",
        "COPY detections TO '/tmp/out.csv'",
        "COPY (SELECT rule FROM detections) TO 'out.parquet'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT rule FROM detections",
        "CREATE VIEW v AS SELECT rule FROM detections",
        "DROP TABLE detections",
        "INSERT INTO detections SELECT * FROM detections",
        "DELETE FROM detections",
        "UPDATE detections SET rule = 'x'",
        "TRUNCATE TABLE detections",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SHOW TABLES",
        "PREPARE p AS SELECT rule FROM detections",
        "EXPLAIN SELECT rule FROM detections",
        "EXPLAIN ANALYZE SELECT rule FROM detections",
        "DESCRIBE detections",
        "SELECT rule FROM detections; SELECT rule FROM detections",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM statistics",
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad(rule, 1000000000) FROM detections",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
        "SELECT rule FROM detections WHERE rule = $missing",
        "SELECT nothing FROM detections",
    ] {
        refused(&scene, APPROVED_CLASS, text).await;
    }
    let long = format!("SELECT rule FROM detections WHERE rule = '{}'", "x".repeat(20_000));
    assert!(refused(&scene, APPROVED_CLASS, &long).await.contains("16384"));
    let deep = format!("SELECT {}1{} AS n FROM detections", "(".repeat(7000), ")".repeat(7000));
    refused(&scene, APPROVED_CLASS, &deep).await;
    refused(&scene, "lookups", "SELECT 1").await;
}

/// A long chain is a deep tree, and a tree is walked on a stack.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_of_conditions_is_refused_and_a_shorter_one_is_no_end_of_the_worker() {
    let mut scene = Scene::new().await;
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("one", 10))]).await;
    let chain = |length| format!("SELECT rule FROM detections WHERE {}", vec!["size=10"; length].join(" OR "));
    assert!(refused(&scene, APPROVED_CLASS, &chain(1000)).await.contains("512 are read"));
    assert_eq!(scene.answer(APPROVED_CLASS, &chain(120)).await, "rule\none\n");
    let sum = |length| format!("SELECT {} AS n FROM detections", vec!["size"; length].join("+"));
    refused(&scene, APPROVED_CLASS, &sum(3000)).await;
    assert_eq!(scene.answer(APPROVED_CLASS, &sum(250)).await, "n\n2500\n");
    let many = vec!["'x'"; 2000].join(",");
    let listed = format!("SELECT rule FROM detections WHERE rule NOT IN ({many})");
    assert_eq!(scene.answer(APPROVED_CLASS, &listed).await, "rule\none\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_leave_is_found_through_every_step() {
    let scene = Scene::new().await;
    for text in [
        "SELECT id FROM detections",
        "SELECT * FROM detections",
        "SELECT upper(id) AS x FROM detections",
        "SELECT concat(rule, id) AS x FROM detections",
        "SELECT CASE WHEN size > 1 THEN id ELSE rule END AS x FROM detections",
        "SELECT x FROM (SELECT id AS x FROM detections) AS t",
        "WITH t AS (SELECT id AS x FROM detections) SELECT x FROM t",
        "SELECT max(id) AS x FROM detections",
        "SELECT min(substr(id, 1, 4)) AS x FROM detections",
        "SELECT string_agg(id, ',') AS x FROM detections",
        "SELECT first_value(id) AS x FROM detections",
        "SELECT id, count(*) AS n FROM detections GROUP BY id",
        "SELECT DISTINCT id FROM detections",
        "SELECT DISTINCT ON (rule) rule, hour, id, sha256, size, taken, country FROM detections",
        "SELECT rule FROM detections UNION ALL SELECT id FROM detections",
        "SELECT lag(id) OVER (ORDER BY hour) AS x FROM detections",
        "SELECT (SELECT max(id) FROM detections) AS x FROM detections",
        "SELECT a.rule, b.id FROM detections a JOIN detections b ON a.size = b.size",
        "SELECT array_agg(rule) AS x FROM detections",
        "SELECT make_array(rule) AS x FROM detections",
        "SELECT named_struct('a', rule) AS x FROM detections",
        "SELECT arrow_cast(rule, 'Binary') AS x FROM detections",
        "SELECT rule, rule FROM detections",
        "SELECT rule, rule AS rule FROM detections",
        "SELECT rule AS a, size AS a FROM detections",
    ] {
        refused(&scene, APPROVED_CLASS, text).await;
    }
    for text in [
        "SELECT files FROM statistics",
        "SELECT max(files) AS x FROM statistics",
        "SELECT files + 1 AS x FROM statistics",
        "SELECT files, count(*) AS n FROM statistics GROUP BY files",
        "SELECT median(files) AS x FROM statistics",
    ] {
        let why = refused(&scene, OPEN_CLASS, text).await;
        assert!(why.contains("may leave only as a count, a sum or a mean") || why.contains("type"), "{why}");
    }
    for text in [
        "SELECT count(DISTINCT id) AS events FROM detections",
        "SELECT rule, count(id) AS n FROM detections WHERE id <> '0' GROUP BY rule ORDER BY n DESC LIMIT 3",
        "SELECT upper(rule) AS x, row_number() OVER (ORDER BY size) AS n FROM detections",
        "SELECT rule FROM detections WHERE id IN (SELECT id FROM detections)",
        "SELECT a.rule FROM detections a WHERE EXISTS (SELECT 1 FROM detections b WHERE b.id = a.id)",
        "SELECT 1 AS one",
    ] {
        scene.plan(&Question::of(APPROVED_CLASS, text)).await.unwrap();
    }
    let means = "SELECT counted, sum(files) AS f, avg(found) AS m FROM statistics GROUP BY ROLLUP (counted)";
    scene.plan(&Question::of(OPEN_CLASS, means)).await.unwrap();
}
