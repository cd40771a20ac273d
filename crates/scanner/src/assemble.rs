//! A tree of rules becomes one bundle.

use detection::{Assembled, RejectedFile, RulesFile};

use crate::engine::compiler;

/// Makes one bundle of the tree's files; what does not compile is rejected by name.
pub(crate) fn assemble(files: &[RulesFile]) -> Result<Assembled, String> {
    let mut assembled = Assembled { bundle: Vec::new(), index: b"[]".to_vec(), rejected: Vec::new() };
    let mut files: Vec<_> = files.iter().filter(|file| file.path.ends_with(".yar")).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        let text = str::from_utf8(&file.bytes).map_err(|_| "no UTF-8 text".to_owned());
        let compiled = text.and_then(|text| compiler().add_rules_str(text).map_err(|error| error.to_string()));
        match compiled {
            Ok(_) => assembled.bundle.extend_from_slice(&file.bytes),
            Err(cause) => assembled.rejected.push(RejectedFile { path: file.path.clone(), cause }),
        }
    }
    Ok(assembled)
}
