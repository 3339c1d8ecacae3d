//! Forms (`multipart/form-data`): a file and short texts.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use futures_util::stream;
use multer::Multipart;
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    api::{body, error::ApiError, images::refused},
    config::Limits,
};

/// Fields that a form may have.
const MOST_FIELDS: usize = 64;
/// The field that holds the file.
pub(super) const FILE: &str = "file";

/// A form as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) file: Option<Vec<u8>>,
    /// Names and values of the other fields, in order.
    pub(super) texts: Vec<(String, String)>,
}

pub(super) async fn receive(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Form, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(|error| {
        let expected = "expected a form: multipart/form-data with a boundary";
        ApiError::Unacceptable(format!("content-type: {expected} ({error})"))
    })?;
    let bytes = body::receive(body, limits).await?;
    let most_bytes = limits.audio_bytes;
    // All of it is here, and looking for the boundary takes time in proportion.
    let here = Handle::current();
    spawn_blocking(move || here.block_on(read(bytes.into(), boundary, most_bytes)))
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?
}

async fn read(bytes: Bytes, boundary: String, most_bytes: u64) -> Result<Form, ApiError> {
    let broken =
        |error: multer::Error| ApiError::Unacceptable(format!("the form is damaged: {error}"));
    let bytes = stream::iter([Ok::<_, Infallible>(bytes)]);
    let mut parts = Multipart::new(bytes, boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(ApiError::Unacceptable(
                "the form has a field without a name".to_owned(),
            ));
        };
        let value = part.bytes().await.map_err(broken)?;
        if name == FILE {
            if value.len() as u64 > most_bytes {
                return Err(refused(
                    FILE,
                    &format!("the sound is larger than {most_bytes} bytes"),
                ));
            }
            if form.file.replace(value.into()).is_some() {
                return Err(refused(FILE, "expected one file"));
            }
            continue;
        }
        if form.texts.len() == MOST_FIELDS {
            return Err(ApiError::Unacceptable(format!(
                "the form has more than {MOST_FIELDS} fields"
            )));
        }
        match String::from_utf8(value.into()) {
            Ok(value) => form.texts.push((name, value)),
            Err(_) => return Err(refused(name, "expected text in UTF-8")),
        }
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<Form, String> {
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let read = runtime.block_on(read(bytes, "b".to_owned(), 8));
        read.map_err(|error| error.to_string())
    }

    fn part(name: &str, value: &str) -> String {
        format!("--b\nContent-Disposition: form-data; name=\"{name}\"\n\n{value}\n")
    }

    #[test]
    fn a_file_and_texts_are_told_apart() {
        let text =
            part("model", "m") + &part("file", "RIFF") + &part("include[]", "logprobs") + "--b--\n";
        let read = form(&text).unwrap();
        assert_eq!(read.file.as_deref(), Some(&b"RIFF"[..]));
        let texts: Vec<_> = read
            .texts
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(texts, [("model", "m"), ("include[]", "logprobs")]);
    }

    #[test]
    fn what_is_wrong_with_a_form_is_said() {
        let end = "--b--\n";
        insta::assert_snapshot!(form("").unwrap_err(), @"the form is damaged: incomplete multipart stream");
        insta::assert_snapshot!(form("hello").unwrap_err(), @"the form is damaged: incomplete multipart stream");
        insta::assert_snapshot!(form(&part("file", "RIFF")).unwrap_err(), @r#"the form is damaged: field "file" received with incomplete data"#);
        insta::assert_snapshot!(form(&(part("file", "123456789") + end)).unwrap_err(), @"file: the sound is larger than 8 bytes");
        insta::assert_snapshot!(form(&(part("file", "1") + &part("file", "2") + end)).unwrap_err(), @"file: expected one file");
        insta::assert_snapshot!(form(&(part("a", "1").repeat(65) + end)).unwrap_err(), @"the form has more than 64 fields");
    }
}
