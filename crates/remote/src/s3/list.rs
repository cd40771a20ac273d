//! Listing in byte order, of services that list in another.
//!
//! SeaweedFS lists as it walks its folders: `a/1` before `a.p/1`, although `.` comes before `/`. So
//! each folder is read by itself and sorted. Within one folder every service sorts by name; what
//! differs is where a folder `a/` stands among `a-…` and `a.…`, the only names of ours that sort
//! before it and start with its name.

use std::collections::BTreeSet;

use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use storage::{Error, Key, Listing};

use super::S3Objects;
use crate::error::failed;

pub(super) async fn list(store: &S3Objects, listing: &Listing) -> Result<Vec<Key>, Error> {
    let objects = store.objects();
    let after = listing.after.as_ref().map(|key| format!("{objects}{key}"));
    let mut found = Vec::new();
    // What is still to be looked at, the next one last. A folder ends with `/`.
    let mut rest = vec![format!("{objects}{}", listing.folder.prefix())];
    while let Some(next) = rest.pop().filter(|_| found.len() < listing.limit) {
        if next.ends_with('/') {
            let wanted = listing.limit - found.len();
            rest.extend(level(store, &next, after.as_deref(), wanted).await?.into_iter().rev());
        } else {
            let key = next.strip_prefix(&objects).unwrap_or(&next);
            found.push(key.parse().map_err(failed(&store.name, "list an object that is none of ours"))?);
        }
    }
    Ok(found)
}

/// How many bytes all objects have.
pub(super) async fn bytes(store: &S3Objects) -> Result<u64, Error> {
    let (objects, mut sum) = (store.objects(), 0_u64);
    let mut options = PaginatedListOptions::default();
    loop {
        let page = store.bucket.list_paginated(Some(objects.as_str()), options.clone()).await;
        let page = page.map_err(failed(&store.name, "list objects"))?;
        sum = page.result.objects.iter().fold(sum, |sum, meta| sum.saturating_add(meta.size));
        options.page_token = page.page_token;
        if options.page_token.is_none() {
            return Ok(sum);
        }
    }
}

/// What lies directly in `folder` and holds keys after `after`, in byte order: all of it, or enough
/// for `wanted` keys.
async fn level(store: &S3Objects, folder: &str, after: Option<&str>, wanted: usize) -> Result<BTreeSet<String>, Error> {
    let comes = |path: &str| after.is_none_or(|after| path > after || (path.ends_with('/') && after.starts_with(path)));
    let mut found = BTreeSet::new();
    let mut options = PaginatedListOptions {
        offset: after.and_then(|after| start(folder, after)),
        delimiter: Some("/".into()),
        ..PaginatedListOptions::default()
    };
    loop {
        let page = store.bucket.list_paginated(Some(folder), options.clone()).await;
        let page = page.map_err(failed(&store.name, "list objects"))?;
        let folders = page.result.common_prefixes.iter().map(|path| format!("{path}/"));
        let all: Vec<String> =
            page.result.objects.iter().map(|meta| meta.location.to_string()).chain(folders).collect();
        let last = all.iter().map(|path| path.trim_end_matches('/')).max().unwrap_or_default().to_owned();
        // A folder that was emptied is listed in itself, as an object.
        found.extend(all.into_iter().filter(|path| path.starts_with(folder) && path != folder && comes(path)));
        options.page_token = page.page_token;
        // The next page may hold what belongs before a folder that starts the last name.
        let settled = !found.iter().any(|path| path.strip_suffix('/').is_some_and(|path| last.starts_with(path)));
        // One more than wanted: of the first folder, all keys may come before `after`.
        if options.page_token.is_none() || (settled && found.len() > wanted) {
            return Ok(found);
        }
    }
}

/// Where to start in `folder` so that nothing is missed that comes after `after`: its own name, or
/// the name of the folder that could stand before it in another order, less a letter.
fn start(folder: &str, after: &str) -> Option<String> {
    let rest = after.strip_prefix(folder)?;
    let name = rest.split('/').next()?;
    let base = name.split(['-', '.']).next()?;
    if base == rest {
        return Some(after.to_owned());
    }
    let base = base.get(..base.len().saturating_sub(1)).filter(|base| !base.is_empty())?;
    Some(format!("{folder}{base}"))
}
