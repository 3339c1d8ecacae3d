//! Names of models as Ollama has them: with a tag, `latest` where none is given.

use crate::api::{Identity, Service, error::ApiError, fields::Fields, openai::models};

const LATEST: &str = ":latest";

/// The model that a request names, as it names it.
pub(super) fn wanted(fields: Fields<'_>, service: &Service) -> Result<String, ApiError> {
    let name = fields.text("model")?.filter(|name| !name.is_empty());
    // What the field was called at first.
    let name = match name {
        None => fields.text("name")?.filter(|name| !name.is_empty()),
        name => name,
    };
    let Some(name) = name else {
        return Err(ApiError::invalid("model", "model is required"));
    };
    known(name, &service.identity)?;
    Ok(name.to_owned())
}

pub(super) fn known(name: &str, identity: &Identity) -> Result<(), ApiError> {
    let refused = match models::known(name, identity) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    let plain = name.strip_suffix(LATEST).ok_or_else(|| refused.clone())?;
    models::known(plain, identity).map_err(|_| refused)
}

/// The name with a tag.
pub(super) fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') {
        name.to_owned()
    } else {
        format!("{name}{LATEST}")
    }
}
