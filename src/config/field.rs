//! How single fields of the configuration are spelled in JSON.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Number(u32),
    Tag(String),
}

fn write_number_or<S: Serializer>(value: Option<u32>, tag: &str, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(number) => to.serialize_u32(number),
        None => to.serialize_str(tag),
    }
}

fn read_number_or<'de, D: Deserializer<'de>>(tag: &str, from: D) -> Result<Option<u32>, D::Error> {
    match Spelled::deserialize(from)? {
        Spelled::Number(number) => Ok(Some(number)),
        Spelled::Tag(other) if other == tag => Ok(None),
        Spelled::Tag(other) => Err(D::Error::custom(format!(
            "expected a number or {tag:?}, got {other:?}"
        ))),
    }
}

/// A number, or `"auto"` for `None`.
pub(super) mod auto {
    use serde::{Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        clippy::ref_option,
        reason = "serde's signature"
    )]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<u32>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        super::write_number_or(*value, "auto", to)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u32>, D::Error> {
        super::read_number_or("auto", from)
    }
}

/// A number, or `"context"` for `None`.
pub(super) mod context {
    use serde::{Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        clippy::ref_option,
        reason = "serde's signature"
    )]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<u32>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        super::write_number_or(*value, "context", to)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u32>, D::Error> {
        super::read_number_or("context", from)
    }
}

/// A list of names, or `"auto"` for `None`.
pub(super) mod names {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Spelled {
        List(Vec<String>),
        Tag(String),
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Vec<String>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(names) => names.serialize(to),
            None => to.serialize_str("auto"),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<String>>, D::Error> {
        match Spelled::deserialize(from)? {
            Spelled::List(names) => Ok(Some(names)),
            Spelled::Tag(tag) if tag == "auto" => Ok(None),
            Spelled::Tag(other) => Err(D::Error::custom(format!(
                "expected a list of names or \"auto\", got {other:?}"
            ))),
        }
    }
}

/// A device's name, or `"auto"` for `None`.
pub(super) mod device {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_deref().unwrap_or("auto"))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|name| name != "auto"))
    }
}

/// A length of time as whole or fractional seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}
