//! What was said before: the conversation that a request continues, and kept items it refers to.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::{
    items::Item,
    store::{Store, Stored},
};
use crate::api::error::ApiError;

/// The kept answers that one request may see.
pub(super) struct History<'a> {
    store: &'a Store,
    tenant: u64,
    /// Items of the answers that were referred to so far, by their ids.
    read: HashMap<String, Value>,
    touched: bool,
}

impl<'a> History<'a> {
    pub(super) fn new(store: &'a Store, tenant: u64) -> Self {
        Self {
            store,
            tenant,
            read: HashMap::new(),
            touched: false,
        }
    }

    /// The answer to continue.
    pub(super) fn previous(&mut self, id: &str) -> Result<Arc<Stored>, ApiError> {
        self.touched = true;
        let found = self.store.get(self.tenant, id);
        found.ok_or_else(|| ApiError::UnknownPrevious(id.to_owned()))
    }

    /// Whether the request says all by itself.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// A kept item.
    pub(super) fn item(&mut self, id: &str) -> Result<Value, ApiError> {
        self.touched = true;
        let unknown = || ApiError::Unknown {
            kind: "Item",
            id: id.to_owned(),
        };
        if let Some(item) = self.read.get(id) {
            return Ok(item.clone());
        }
        let stored = self.store.with_item(self.tenant, id).ok_or_else(unknown)?;
        for item in stored.input().into_iter().chain(stored.output()) {
            if let Some(id) = item["id"].as_str().map(str::to_owned) {
                self.read.insert(id, item);
            }
        }
        self.read.get(id).cloned().ok_or_else(unknown)
    }
}

/// All items of a conversation up to and with this answer.
pub(super) fn conversation(stored: &Arc<Stored>) -> Vec<Item> {
    let mut chain: Vec<_> = stored.chain().collect();
    chain.reverse();
    let items = chain
        .into_iter()
        .flat_map(|stored| stored.input().into_iter().chain(stored.output()));
    items
        .map(|value| Item {
            path: "previous_response_id".to_owned(),
            value,
        })
        .collect()
}
