//! The end of regions' keys.

use std::time::Duration;

use stdx::durable;
use testkit::APPROVED_CLASS;

use super::scene::{CUSTODIANS, Scene, Setting, Shared, folder, read, weeks_ago};
use crate::process::Done;

fn retire(scene: &Scene, who: &str) -> Done {
    let config = format!("{}/clerestory.toml", folder(who));
    scene.system.run(&["--json", "data", "retire", "--config", &config])
}

fn keys(scene: &Scene, who: &str) -> usize {
    std::fs::read_dir(scene.system.file(&format!("{}/keys/regions", folder(who)))).unwrap().count()
}

#[test]
fn what_was_sealed_outlives_its_region_key_in_the_custodians_own_table() {
    outlives_its_key(Scene::running_with(&Setting { from: Some(weeks_ago(3)), ..Setting::default() }));
}

#[test]
fn what_was_sealed_into_a_bucket_outlives_its_region_key_too() {
    let shared = Some(Shared::with_others("retire"));
    outlives_its_key(Scene::running_with(&Setting { from: Some(weeks_ago(3)), shared, ..Setting::default() }));
}

fn outlives_its_key(mut scene: Scene) {
    let objects = scene.objects_at(APPROVED_CLASS, weeks_ago(3).after(Duration::from_secs(3600)));
    scene.keep(&objects);
    let unset = retire(&scene, "member");
    assert!(unset.code == 1 && unset.stderr.contains("nobody says where the sealed objects are"), "{unset:?}");
    let vault = |scene: &Scene, before: &str, url: &str| {
        let line = format!("vault = \"{url}\"");
        CUSTODIANS.iter().for_each(|who| scene.system.set(&folder(who), before, &line));
        line
    };
    // Somebody who has no vault answers 404, and no key is destroyed for that.
    let wrong = vault(&scene, "# vault = \"https://vendor.example\"", &scene.system.supervisor.url());
    for who in CUSTODIANS {
        let refused = retire(&scene, who);
        assert!(refused.code == 1 && refused.stderr.contains("is not the vault of region"), "{refused:?}");
        assert_eq!(keys(&scene, who), 6);
    }
    vault(&scene, &wrong, &scene.system.vendor.url());
    for who in CUSTODIANS {
        let done = retire(&scene, who).ok().json();
        let moved: u64 = done["destroyed"].as_array().unwrap().iter().map(|it| it["moved"].as_u64().unwrap()).sum();
        assert_eq!((done["destroyed"].as_array().unwrap().len(), moved), (2, 2), "{done}");
        assert_eq!(keys(&scene, who), 4, "those of last week wait for endpoints that were away");
        assert_eq!(retire(&scene, who).ok().json()["destroyed"].as_array().unwrap().len(), 0);
        assert_eq!((scene.state(who).uses, scene.state(who).opened), (0, 0));
    }
    // The server was running all the while: it opens from the table that another process has written.
    let made = scene.make_of(objects);
    let ask = scene.ask(&made);
    let [one, other] = CUSTODIANS.map(|who| scene.shares(who, &made, &scene.grant(who, &ask)));
    assert_eq!(read(&made, [&one, &other]).len(), 2);
    // Without the table nobody does.
    scene.custodian("member").kill();
    let table = scene.system.file("custodian-member/table");
    durable::rename(&table, &scene.system.file("elsewhere")).unwrap();
    std::fs::create_dir(&table).unwrap();
    let broken = retire(&scene, "member");
    assert!(broken.code == 1 && broken.stderr.contains("the custodian's table"), "{broken:?}");
}
