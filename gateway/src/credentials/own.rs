//! What a source itself needs to be let in: read anew each time, so that a secret that is changed is changed here too.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::source::SourceError;
use crate::config::SecretRef;
use crate::secrets::Secrets;

/// The most that is read of a file.
const MOST: u64 = 64 << 10;

/// The text behind `reference`, without a line end.
pub(super) fn text(reference: &SecretRef, secrets: &Arc<Secrets>) -> Result<Zeroizing<String>, SourceError> {
    let bytes = match reference {
        SecretRef::Secret(name) => secrets.reveal(name).map_err(|error| SourceError(error.to_string()))?,
        SecretRef::File(path) => {
            use std::io::Read;
            let failed = |error: std::io::Error| SourceError(format!("{} cannot be read: {error}", path.display()));
            let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
            std::fs::File::open(path).map_err(failed)?.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
            bytes
        }
        SecretRef::Environment(name) => {
            let value = std::env::var(name).map_err(|_| SourceError(format!("the variable {name} is not set to a text")))?;
            Zeroizing::new(value.into_bytes())
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| SourceError("what it is let in with is not UTF-8".into()))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}
